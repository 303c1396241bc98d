// Azurite for a person: on a port, with a container in it, until Ctrl-C. Blobs are kept in memory.
//
//   node local.js CONTAINER [PORT] [HOST]        port 10000 of the loopback interface unless others are given
'use strict';
const [container, port = '10000', host = '127.0.0.1'] = process.argv.slice(2);
if (!container) {
  console.error('usage: node local.js CONTAINER [PORT] [HOST]');
  process.exit(2);
}
process.argv.splice(2);
const { start, forContainer } = require('./azurite');

async function main() {
  const found = await start(host, port);
  await forContainer('PUT', found, container);
  console.log(`Azurite is ready on ${host}:${found}, with the container ${container}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
