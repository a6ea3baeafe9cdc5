// Puts the console into its page.
import { createRoot } from "react-dom/client";
import { App } from "./app";
import "./style/ground.css";
import "./style/frame.css";
import "./style/lists.css";
import "./style/pages.css";

const place = document.getElementById("console");
if (place) createRoot(place).render(<App />);
