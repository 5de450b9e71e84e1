// What the page may ask for, and nothing else of Node.
const { contextBridge, ipcRenderer } = require("electron");

contextBridge.exposeInMainWorld("miro", {
  draw: (prompt) => ipcRenderer.invoke("draw", prompt),
  onStep: (listener) => ipcRenderer.on("step", (_event, step, steps) => listener(step, steps)),
});
