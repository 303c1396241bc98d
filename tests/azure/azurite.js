// Azurite for the tests, in this process: it ends when its standard input does, however whoever started it ends.
//
// Prints `ready PORT FAULTY`: the port of the service, and that of a way to it on which requests fail as asked.
// Reads commands, one a line, and answers each with a line:
//   create CONTAINER                 makes a container
//   delete CONTAINER                 deletes it
//   sas CONTAINER RIGHTS             answers with a shared access signature for it, such as of rights racwdl
//   faults CONTAINER KIND EVERY      from now on every so many requests for it on the faulty way fail:
//                                    throttled (503), failed (500), lost (carried out, no reply), silent (never answered)
'use strict';
// Longer than clients keep a connection that they do not use: else one is closed now and then as it is used again.
process.argv.push('--blobKeepAliveTimeout', '600');
const http = require('node:http');
const crypto = require('node:crypto');
const readline = require('node:readline');

const HOST = '127.0.0.1';
const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
const VERSION = '2021-12-02';

function sign(text) {
  return crypto.createHmac('sha256', Buffer.from(KEY, 'base64')).update(text, 'utf8').digest('base64');
}

// A shared access signature for a container, for an hour.
function sharedAccess(container, rights) {
  const expiry = `${new Date(Date.now() + 3600e3).toISOString().slice(0, 19)}Z`;
  const resource = `/blob/${ACCOUNT}/${container}`;
  const toSign = [rights, '', expiry, resource, '', '', '', VERSION, 'c', '', '', '', '', '', '', ''].join('\n');
  return new URLSearchParams({ sv: VERSION, sr: 'c', sp: rights, se: expiry, sig: sign(toSign) }).toString();
}

// A request for a container, signed with the key of the account.
function forContainer(method, port, container) {
  const date = new Date().toUTCString();
  const path = `/${ACCOUNT}/${container}`;
  const headers = `x-ms-date:${date}\nx-ms-version:${VERSION}\n`;
  const toSign = `${method}\n\n\n\n\n\n\n\n\n\n\n\n${headers}/${ACCOUNT}${path}\nrestype:container`;
  const signature = sign(toSign);
  return new Promise((resolve, reject) => {
    const request = http.request({
      method, host: HOST, port, path: `${path}?restype=container`,
      headers: {
        'x-ms-date': date, 'x-ms-version': VERSION, 'content-length': 0,
        authorization: `SharedKey ${ACCOUNT}:${signature}`,
      },
    }, (reply) => {
      reply.resume();
      reply.on('end', () => (reply.statusCode < 300 ? resolve() : reject(new Error(`status ${reply.statusCode}`))));
    });
    request.on('error', reject);
    request.end();
  });
}

const faults = new Map();

// What becomes of a request on the faulty way.
function fate(url) {
  const plan = faults.get(url.split(/[/?]/)[2]);
  if (!plan) return null;
  plan.seen += 1;
  return plan.seen % plan.every === 0 ? plan.kind : null;
}

function refuse(reply, status, code) {
  reply.writeHead(status, { 'content-type': 'application/xml', 'x-ms-error-code': code });
  reply.end(`<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>On purpose.</Message></Error>`);
}

function faultyWay(port) {
  return http.createServer((request, reply) => {
    const kind = fate(request.url);
    if (kind === 'silent') return request.resume();
    if (kind === 'throttled') { request.resume(); return refuse(reply, 503, 'ServerBusy'); }
    if (kind === 'failed') { request.resume(); return refuse(reply, 500, 'InternalError'); }
    const onward = http.request(
      { method: request.method, host: HOST, port, path: request.url, headers: request.headers },
      (answer) => {
        if (kind === 'lost') {
          answer.resume();
          return answer.on('end', () => request.socket.destroy());
        }
        reply.writeHead(answer.statusCode, answer.rawHeaders);
        return answer.pipe(reply);
      },
    );
    onward.on('error', () => request.socket.destroy());
    return request.pipe(onward);
  });
}

// Starts the service, and returns its port.
async function start(host, port) {
  process.argv.push('--blobHost', host, '--blobPort', String(port));
  process.argv.push('--inMemoryPersistence', '--skipApiVersionCheck', '--silent');
  // It reads the arguments when it is loaded.
  const { BlobServerFactory } = require('azurite/dist/src/blob/BlobServerFactory');
  const server = await new BlobServerFactory().createServer();
  await server.start();
  return Number(new URL(server.getHttpServerAddress()).port);
}

async function main() {
  const port = await start(HOST, 0);
  const faulty = faultyWay(port);
  faulty.keepAliveTimeout = 600e3;
  await new Promise((resolve) => { faulty.listen(0, HOST, resolve); });
  console.log(`ready ${port} ${faulty.address().port}`);
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('close', () => process.exit(0));
  for await (const line of lines) {
    const [command, container, kind, every] = line.split(' ');
    let answer = '';
    try {
      if (command === 'create') await forContainer('PUT', port, container);
      else if (command === 'delete') await forContainer('DELETE', port, container);
      else if (command === 'sas') answer = ` ${sharedAccess(container, kind)}`;
      else if (command === 'faults') faults.set(container, { kind, every: Number(every), seen: 0 });
      else throw new Error(`unknown command ${command}`);
      console.log(`done${answer}`);
    } catch (error) {
      console.log(`failed ${error.message}`);
    }
  }
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

module.exports = { start, forContainer };
