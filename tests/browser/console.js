// Chromium for the tests: it ends when standard input does, however whoever started it ends.
//
// Prints `ready` once the browser is there. Reads commands, one a line, and answers each with a line, `done …` or
// `failed …`:
//   open SCHEME WIDTH URL      opens a page in the colours light or dark, so many pixels wide
//   until EXPRESSION           waits until the page says so
//   fill SELECTOR TEXT         types into a field, and sends its form
//   press KEY                  presses a key
//   reload                     loads the page anew
//   axe                        looks for what keeps people from using the page
//   errors                     what the console of the browser has said since the page was opened: errors and warnings
//   shot FILE                  a picture of the whole page
'use strict';
const path = require('node:path');
const readline = require('node:readline');
const { chromium } = require('playwright-core');

const AXE = path.join(path.dirname(require.resolve('axe-core')), 'axe.min.js');
const PATIENCE = 60_000;
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

let context, page, said = [];

async function open(browser, scheme, width, url) {
  if (context) await context.close();
  context = await browser.newContext({ colorScheme: scheme, viewport: { width: Number(width), height: 900 } });
  page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  said = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) said.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => said.push(`uncaught: ${error.message}`));
  await page.goto(url);
}

// Evaluated by the debugger and not by the page, so the page's own rules about scripts stay as they are.
async function axe() {
  await page.evaluate(require('node:fs').readFileSync(AXE, 'utf8'));
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  if (found.passes.length < 10) throw new Error(`only ${found.passes.length} checks passed`);
  return found.violations.map((one) => `${one.id} at ${one.nodes.map((n) => `${n.target.join(' ')} (${n.any.map((a) => a.message).join('; ')})`).join(', ')}`).join(' | ');
}

// Asked by the debugger, again and again: the page's own rules forbid it to evaluate what it is given.
async function until(expression) {
  const deadline = Date.now() + PATIENCE;
  while (!(await page.evaluate(expression))) {
    if (Date.now() > deadline) throw new Error('it never became so');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function obey(browser, line) {
  const [command, ...words] = line.split(' ');
  const rest = words.join(' ');
  switch (command) {
    case 'open': return open(browser, words[0], words[1], words.slice(2).join(' '));
    case 'until': return until(rest);
    case 'fill':
      await page.fill(words[0], words.slice(1).join(' '));
      return page.press(words[0], 'Enter');
    case 'press': return page.keyboard.press(rest);
    case 'reload': return void await page.reload();
    case 'axe': return axe();
    case 'errors': return said.join(' | ');
    case 'shot': return void await page.screenshot({ path: rest, fullPage: true });
    default: throw new Error('no such command');
  }
}

async function main() {
  const executablePath = process.argv[2];
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  console.log('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const answer = await obey(browser, line);
      console.log(`done ${String(answer ?? '').replaceAll('\n', ' ')}`);
    } catch (error) {
      console.log(`failed ${String(error.message).replaceAll('\n', ' ')}`);
    }
  }
  await browser.close();
}

main();
