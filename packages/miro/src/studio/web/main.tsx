/** The studio's page. */
import { render } from "preact";
import { App } from "./parts/app.js";
import { start } from "./state/start.js";
import "./style.css";

start();
render(<App />, document.getElementById("app")!);
