// node:http with the graceful shutdown of its documentation: close, and after a limit
// closeAllConnections, which "does not destroy sockets upgraded to a different protocol".
'use strict';
const http = require('node:http');

const DRAIN = 5000;
const upgraded = new Set();

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const number = (name) => Number(url.searchParams.get(name) ?? 0);
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /':
      return response.end('hello world');
    case 'GET /slow':
      await sleep(number('ms'));
      return response.end('slow');
    case 'POST /echo': {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      return response.end(Buffer.concat(chunks));
    }
    case 'GET /stream':
      for (let left = number('ms'); left > 0; left -= 50) {
        await sleep(50);
        response.write('piece\n');
      }
      return response.end();
    case 'GET /big':
      return await big(response, number('bytes'));
    default:
      response.statusCode = 404;
      return response.end('not found');
  }
});

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, Math.min(ms, 0x7fffffff)));
}

async function big(response, length) {
  const chunk = Buffer.alloc(64 * 1024, 'x');
  response.setHeader('content-length', length);
  for (let left = length; left > 0; left -= chunk.length) {
    if (!response.write(chunk.subarray(0, left))) {
      await new Promise((resolve) => {
        response.once('drain', resolve);
        response.once('close', resolve);
      });
      if (response.destroyed) return;
    }
  }
  response.end();
}

server.on('upgrade', (request, socket) => {
  upgraded.add(socket);
  socket.on('close', () => upgraded.delete(socket));
  socket.on('error', () => {});
  socket.resume();
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
});

process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  // Since version 19 `close` does this itself.
  server.closeIdleConnections();
  for (const socket of upgraded) socket.end();
  setTimeout(() => {
    server.closeAllConnections();
    for (const socket of upgraded) socket.destroy();
  }, DRAIN).unref();
});

server.listen(Number(process.env.PORT), '127.0.0.1');
