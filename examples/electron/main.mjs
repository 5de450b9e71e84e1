// The main process. The pipeline has a thread of its own in it, so that windows stay alive while pictures are drawn.
import path from "node:path";
import { app, BrowserWindow, ipcMain } from "electron";
import { MiroPipeline } from "miro-t2i";

const here = import.meta.dirname;
const pipeline = MiroPipeline.fromPretrained(undefined, { worker: true });
pipeline.catch(() => {}); // told to each window that asks for a picture

ipcMain.handle("draw", async (event, prompt) => {
  const pipe = await pipeline;
  const { images } = await pipe.generate(String(prompt), {
    steps: 8,
    onStep: ({ step, steps }) => event.sender.send("step", step + 1, steps),
  });
  return images[0].toBuffer("webp");
});

// No `await` here: an application is ready only after its main module has ended.
app.whenReady().then(() => {
  const window = new BrowserWindow({ webPreferences: { preload: path.join(here, "preload.cjs") } });
  return window.loadFile(path.join(here, "index.html"));
});

app.on("window-all-closed", () => app.quit());
app.once("will-quit", async (event) => {
  event.preventDefault();
  await pipeline.then((pipe) => pipe.dispose()).catch(() => {});
  app.exit();
});
