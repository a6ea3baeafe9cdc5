// An operator in a browser: signs in, watches a job get on, tells it to stop. Says each thing that it has seen in a line of its own; whoever
// started it moves the job meanwhile.
//
// From the environment: MODULES (where packages are installed), BROWSER, URL, KEY, TENANT.
import { createRequire } from "node:module";

const { MODULES, BROWSER, URL: base, KEY, TENANT } = process.env;
const { chromium } = createRequire(`${MODULES}/package.json`)("playwright-core");
const say = (what) => console.log(what);
const held = (so, what) => {
  if (!so) throw new Error(what);
};

// Long enough for a busy machine; whoever started it waits a little longer.
const LONG = 100_000;

const browser = await chromium.launch({ executablePath: BROWSER, timeout: LONG });
try {
  const context = await browser.newContext({ viewport: { width: 400, height: 800 }, colorScheme: "dark" });
  context.setDefaultTimeout(LONG);
  const page = await context.newPage();
  const asked = [];
  const complaints = [];
  page.on("request", (request) => asked.push({ url: request.url(), headers: request.headers() }));
  page.on("console", (message) => /content security|trusted/i.test(message.text()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));

  await page.goto(`${base}/console/tenants/${TENANT}`);
  for (const wrong of ["ik_nobodys", "ключ"]) {
    await page.getByLabel("Key").fill(wrong);
    await page.keyboard.press("Enter");
    await page.getByRole("alert").filter({ hasText: "not in force" }).waitFor();
    await page.reload();
  }
  held((await page.evaluate(() => sessionStorage.length)) === 0, "a key that opens nothing is kept");
  say("refused");

  await page.getByLabel("Key").fill(KEY);
  await page.keyboard.press("Enter");
  const bar = page.getByRole("row").filter({ hasText: "export" }).getByRole("progressbar");
  const at = (value) => page.waitForFunction((value) => document.querySelector("td [role=progressbar]")?.getAttribute("aria-valuenow") === value, value);
  await at("25");
  held((await bar.getAttribute("aria-valuetext")) === "100 of 400 documents", "the bar says how far it is");
  held((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0, "wider than the screen");
  say("25");
  await at("75");
  say("75");

  // Whoever looks away asks nothing; whoever comes back sees what there is.
  await page.clock.install();
  const hide = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await hide(true);
  const before = asked.length;
  await page.clock.fastForward(60_000);
  held(asked.length === before, "a hidden page asks");
  say("hidden");
  await hide(false);
  await at("100");
  await page.clock.resume();
  say("100");

  await page.reload();
  await page.getByRole("button", { name: /^Cancel export/ }).click();
  await page.getByRole("button", { name: "Cancel the job" }).click();
  await page.getByRole("status").filter({ hasText: "was told to stop" }).waitFor();
  await page.getByText("stopping").waitFor();
  say("cancelled");

  // Its own page, and what it was asked.
  await page.getByRole("link", { name: /^export/ }).click();
  await page.getByRole("button", { name: "Show what it was asked" }).click();
  await page.getByText('"format": "zip"').waitFor();

  await page.getByRole("link", { name: "Cells" }).click();
  await page.getByRole("table", { name: "Cells" }).getByText("ready").first().waitFor();
  // Its worker is none that anybody can see: it serves a database that is only looked at while somebody is there.
  await page.getByText("Nobody runs jobs").waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Key").waitFor();
  held((await page.evaluate(() => sessionStorage.length + localStorage.length + document.cookie.length)) === 0, "something is left of the key");

  held(complaints.length === 0, complaints.join("\n"));
  held(!asked.some(({ url, headers }) => url.includes(KEY) || headers.cookie || !url.startsWith(base)), "the key was in an address, or somebody else was asked");
  held(asked.some(({ headers }) => headers.authorization === `Bearer ${KEY}`), "no call had the key");
  say("done");
} finally {
  await browser.close();
}
