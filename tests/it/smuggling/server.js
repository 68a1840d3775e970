// Says of each request that Node's parser found whole what it was: as a line on stdout, and as the answer.
'use strict';

const http = require('node:http');

const server = http.createServer({ maxHeaderSize: 128 * 1024, keepAliveTimeout: 300_000 }, (request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const { method, url, headers, socket } = request;
    const body = Buffer.concat(parts).toString('hex');
    const line = [socket.remotePort, method, headers.host || '-', url, body || '-'].join(' ');
    // A pipe is written at once: the line is out before the answer is.
    process.stdout.write(`${line}\n`);
    response.end(line);
  });
});

server.listen(0, '127.0.0.1', () => process.stdout.write(`listening ${server.address().port}\n`));
// Ends with the test that started it.
process.stdin.on('end', () => process.exit()).resume();
