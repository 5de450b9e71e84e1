// The main process. The pipeline has a thread of its own in it, so that windows stay alive while pictures are drawn.
import path from "node:path";
import { app, BrowserWindow, ipcMain } from "electron";
import { MiroPipeline } from "miro-t2i";

const here = import.meta.dirname;
const pipeline = MiroPipeline.fromPretrained(undefined, { worker: true });

ipcMain.handle("draw", async (event, prompt) => {
  const pipe = await pipeline;
  const { images } = await pipe.generate(String(prompt), {
    steps: 8,
    onStep: ({ step, steps }) => event.sender.send("step", step + 1, steps),
  });
  return images[0].toBuffer("webp");
});

await app.whenReady();
const window = new BrowserWindow({ webPreferences: { preload: path.join(here, "preload.cjs") } });
await window.loadFile(path.join(here, "index.html"));

app.on("window-all-closed", () => app.quit());
app.on("will-quit", async (event) => {
  event.preventDefault();
  await (await pipeline).dispose();
  app.exit();
});
