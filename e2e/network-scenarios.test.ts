/** What people do with a network: a web server published, much data both ways, names, pings, datagrams; and its capture. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { createServer, get } from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { NetworkCapture } from './capture.ts';
import { DEBIAN, DEBIAN_TIMEOUT_MS, importDebian } from './debian-image.ts';
import { Arcbox } from './support.ts';

const PAGES = 100;
const PAGE_LINES = 5000;
const UDP_PORT = 7;
const UDP_CLIENTS = 8;
const UDP_ROUNDS = 5;
/** A datagram that is not answered is sent again after so long, twice as long, and so on. */
const UDP_RETRY_MS = 250;
const MIB = 1024 * 1024;
const CAPTURED_BYTES = 8 * MIB;
const BULK_BYTES = 256 * MIB;
const START_LIMIT_MS = 60_000;

/** The pages, nginx, and an echo that tells each client which port it is seen at. */
const SERVER = `
  for i in $(seq ${PAGES}); do seq $i $((i + ${PAGE_LINES})) >/var/www/html/$i.txt; done
  nginx
  exec node -e 'require("dgram").createSocket("udp4").on("message", function (message, { port, address }) {
    this.send(port + " " + message, port, address);
  }).bind(${UDP_PORT})'`;

let arcbox: Arcbox;
let capture: NetworkCapture;

before(
  async () => {
    arcbox = new Arcbox();
    await importDebian(arcbox);
    await ok('network', 'create', 'town');
    const published = ['-p', '127.0.0.1::80', '-p', `127.0.0.1::${UDP_PORT}/udp`];
    const place = ['--name', 'web', '--network', 'town', '--network-alias', 'site'];
    await ok('run', '-d', ...place, ...published, DEBIAN, 'sh', '-ec', SERVER);
    capture = await NetworkCapture.start(arcbox, 'scenarios');
  },
  { timeout: DEBIAN_TIMEOUT_MS },
);
after(async () => {
  await arcbox.run(['rm', '-f', 'web']);
  await arcbox[Symbol.asyncDispose]();
});

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await arcbox.run(args);
  assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

const inTown = (script: string): Promise<string> =>
  ok('run', '--rm', '--network', 'town', 'busybox', 'sh', '-c', script);

/** The port of the host that leads to one of the server's. */
async function published(port: string): Promise<number> {
  return Number((await ok('port', 'web', port)).trim().split(':').at(-1));
}

function page(number: number): string {
  return Array.from({ length: PAGE_LINES + 1 }, (_, line) => `${number + line}\n`).join('');
}

/** Asks until somebody listens. */
async function untilServed(url: string): Promise<void> {
  const endMs = performance.now() + START_LIMIT_MS;
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 500)) {
    try {
      const [response] = await once(get(url, { agent: false }), 'response');
      await text(response);
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

test('a published nginx, fetched by curl 100 times at once: every page is right', async () => {
  const url = `http://127.0.0.1:${await published('80')}`;
  await untilServed(`${url}/1.txt`);
  const directory = join(arcbox.home, 'pages');
  mkdirSync(directory);
  await promisify(execFile)('curl', [
    ...['--silent', '--show-error', '--fail', '--parallel', '--parallel-immediate'],
    ...['--parallel-max', String(PAGES), '--output', join(directory, '#1'), `${url}/[1-${PAGES}].txt`],
  ]);
  for (let number = 1; number <= PAGES; number += 1) {
    assert.ok(readFileSync(join(directory, String(number)), 'utf8') === page(number), `page ${number}`);
  }
});

test('another container has a name and an alias, and it and the gateway answer pings', async () => {
  const output = await inTown(
    'nslookup web; nslookup site; ping -c 2 -W 20 web; ping -c 2 -W 20 site; ping -c 2 -W 20 gateway',
  );
  const address = await ok('inspect', '--format', '{{.NetworkSettings.Networks.town.IPAddress}}', 'web');
  for (const name of ['web', 'site'])
    assert.match(output, new RegExp(`Name:\\s+${name}\\nAddress: ${address.trim()}\\n`), output);
  assert.equal(output.match(/ 2 packets received/g)?.length, 3, output);
});

/** Sends until there is an answer; others are not lost meanwhile. */
async function ask(socket: Socket, message: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const heard = (data: Buffer): void => {
    // The answer to an earlier one that was sent again may be late.
    if (data.toString().endsWith(` ${message}`)) resolve(data.toString());
  };
  socket.on('message', heard);
  let waitMs = UDP_RETRY_MS;
  let timer: NodeJS.Timeout | undefined;
  const send = (): void => {
    socket.send(message);
    timer = setTimeout(send, waitMs);
    waitMs *= 2;
  };
  send();
  return promise.finally(() => {
    clearTimeout(timer);
    socket.off('message', heard);
  });
}

test('a published UDP port: each of several clients has a flow of its own, and its own answers', async () => {
  const port = await published(`${UDP_PORT}/udp`);
  const seen = await Promise.all(
    Array.from({ length: UDP_CLIENTS }, async (_, client) => {
      const socket = createSocket('udp4');
      const heard: string[] = [];
      try {
        socket.connect(port, '127.0.0.1');
        await once(socket, 'connect');
        socket.on('message', (data) => heard.push(data.toString()));
        const ports = new Set<string>();
        for (let round = 0; round < UDP_ROUNDS; round += 1) {
          const answer = await ask(socket, `${client}-${round}`);
          ports.add(answer.slice(0, answer.indexOf(' ')));
        }
        assert.equal(ports.size, 1, 'one flow');
        for (const answer of heard) assert.match(answer, new RegExp(` ${client}-`));
        return [...ports][0];
      } finally {
        socket.close();
      }
    }),
  );
  assert.equal(new Set(seen).size, UDP_CLIENTS);
});

test('a UDP echo on the host’s loopback: several at once, each is answered', async () => {
  const echo = createSocket('udp4');
  const from = new Set<number>();
  echo.on('message', (message: Buffer, { port, address }: RemoteInfo) => {
    from.add(port);
    echo.send(`echo ${message}`, port, address);
  });
  echo.bind(0, '127.0.0.1');
  await once(echo, 'listening');
  try {
    const ends = `/dev/udp/host.docker.internal/${echo.address().port}`;
    const client = `exec 3<>${ends}
      for waits in 1 2 4 8 16 32; do
        echo "from $1" >&3
        timeout $waits dd bs=64 count=1 <&3 2>/dev/null && exit
      done`;
    const all = `for i in 1 2 3 4; do bash -c '${client}' client $i & done; wait`;
    const answers = (await ok('exec', 'web', 'sh', '-c', all)).trim().split('\n').sort();
    assert.deepEqual(answers, ['echo from 1', 'echo from 2', 'echo from 3', 'echo from 4']);
    assert.equal(from.size, 4);
  } finally {
    echo.close();
  }
});

/** A container fetches so many bytes from the host's loopback and sends them back; they have to be the same. */
async function roundTrip(bytes: number): Promise<void> {
  // Of a length that meets no other.
  const block = randomBytes(MIB + 13);
  const sent = createHash('sha256');
  const web = createServer((_request, response) => {
    response.setHeader('content-length', bytes);
    let left = bytes;
    const more = (): void => {
      while (left > 0) {
        const piece = block.subarray(0, Math.min(block.length, left));
        left -= piece.length;
        sent.update(piece);
        if (!response.write(piece)) {
          response.once('drain', more);
          return;
        }
      }
      response.end();
    };
    more();
  });
  let count = 0;
  const back = createHash('sha256');
  const sink = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('data', (data) => {
      count += data.length;
      back.update(data);
    });
    socket.on('end', () => socket.end('taken\n'));
  });
  try {
    web.listen(0, '127.0.0.1');
    sink.listen(0, '127.0.0.1');
    await Promise.all([once(web, 'listening'), once(sink, 'listening')]);
    const host = 'host.docker.internal';
    const port = (server: net.Server): number => (server.address() as AddressInfo).port;
    const output = await inTown(`wget -q -O - http://${host}:${port(web)}/ | nc ${host} ${port(sink)}`);
    assert.equal(output, 'taken\n');
    assert.equal(count, bytes);
    assert.equal(back.digest('hex'), sent.digest('hex'));
  } finally {
    web.close();
    sink.close();
  }
}

test('wget from the host’s loopback, and all of it sent back: the hash is the same', () =>
  roundTrip(CAPTURED_BYTES));

test('tshark finds no malformed packet and no bad checksum in a capture of all of that', async () => {
  await capture.stop('web');
  const count = async (filter: string): Promise<number> => (await capture.read(filter)).length;
  // It was captured, and its checksums were looked at.
  assert.ok((await count('http.request && tcp.checksum.status == 1')) >= PAGES);
  assert.ok((await count('icmp && icmp.checksum.status == 1')) >= 4);
  assert.ok((await count('dns.qry.name == "site" && udp.checksum.status == 1')) >= 2);
  assert.ok(
    (await count(`udp.port == ${UDP_PORT} && udp.checksum.status == 1`)) >= 2 * UDP_CLIENTS * UDP_ROUNDS,
  );
  assert.ok((await count('tcp.len > 10000 && tcp.checksum.status == 1')) >= 100);
  assert.deepEqual(await capture.broken(), []);
});

test('256 MiB from the host and back again, with nobody looking', () => roundTrip(BULK_BYTES));
