import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../src/digest.ts';
import { ImageError } from '../src/index.ts';
import { MEDIA_TYPES } from '../src/manifest.ts';
import { parseChallenges } from '../src/registry/auth.ts';
import { discard, retryDelayMs, retrying, Transport, TransportError } from '../src/registry/transport.ts';
import { testImage } from './support/archives.ts';
import { FakeServer } from './support/registry.ts';
import { withStore } from './support/store.ts';
import { tar } from './support/tars.ts';

process.env.DOCKER_CONFIG = '/nonexistent';
/** Bytes that do not pack, so that the layer's blob is long enough to break. */
const noise = Buffer.from(
  Array.from({ length: 40_000 }, (_, index) => (index * index * 31 + (index >> 3)) & 0xff),
);
const plain = testImage([[{ name: 'noise', data: noise }]]);
const image = { ...plain, blobs: plain.layers.map((layer) => gzipSync(layer)) };
const blob = image.blobs[0] ?? Buffer.alloc(0);

type Handler = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A registry with that image, in which `fault` may answer first. */
async function serving(fault: Handler): Promise<FakeServer> {
  return FakeServer.start((request, response) => {
    if (fault(request, response)) return;
    const url = request.url ?? '';
    if (url === '/v2/') response.end();
    else if (url.includes('/manifests/')) {
      response.writeHead(200, { 'content-type': MEDIA_TYPES.ociManifest }).end(image.manifest());
    } else if (url.endsWith(sha256(image.config))) response.end(image.config);
    else if (url.endsWith(sha256(blob))) sendBlob(request, response);
    else response.writeHead(404).end();
  });
}

function sendBlob(request: IncomingMessage, response: ServerResponse): void {
  const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (request.headers.range === undefined) response.writeHead(200, { 'content-length': blob.length });
  else {
    response.writeHead(206, {
      'content-length': blob.length - from,
      'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}`,
    });
  }
  response.end(blob.subarray(from));
}

const isBlob = (request: IncomingMessage): boolean => request.url?.endsWith(sha256(blob)) ?? false;

/** Pulls from a registry with that fault. */
async function pull(fault: Handler): Promise<readonly string[]> {
  await using server = await serving(fault);
  await withStore(async ({ store }) => {
    const { image: pulled } = await store.pull(`${server.host}/app:1`);
    assert.equal(pulled.id, sha256(image.config));
  });
  return server.requests;
}

async function refuses(fault: Handler, code: string, why: RegExp): Promise<void> {
  await using server = await serving(fault);
  await withStore(async ({ store }) => {
    await assert.rejects(
      store.pull(`${server.host}/app:1`),
      (error) => error instanceof ImageError && error.code === code && why.test(error.message),
    );
    assert.equal((await store.list()).length, 1);
  });
}

test('a transfer that breaks is taken up again where it stopped', async () => {
  let breaks = 0;
  const requests = await pull((request, response) => {
    if (!isBlob(request) || breaks >= 2) return false;
    breaks += 1;
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(from === 0 ? 200 : 206, {
      'content-length': blob.length - from,
      ...(from === 0 ? {} : { 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` }),
    });
    response.write(blob.subarray(from, from + 1000), () => response.destroy());
    return true;
  });
  assert.deepEqual(
    requests.filter((line) => line.includes(' bytes=')).map((line) => line.split(' bytes=')[1]),
    ['1000-', '2000-'],
  );
});

test('a registry that does not know of ranges sends it again', async () => {
  let broke = false;
  await pull((request, response) => {
    if (!isBlob(request)) return false;
    response.writeHead(200, { 'content-length': blob.length });
    if (broke) response.end(blob);
    else response.write(blob.subarray(0, 1000), () => response.destroy());
    broke = true;
    return true;
  });
});

test('where nobody is there is no second try; a host that has answered may come back', async () => {
  const { signal } = new AbortController();
  using transport = new Transport();
  const server = await FakeServer.start((_, response) =>
    response.writeHead(200, { connection: 'close' }).end(),
  );
  const url = new URL(`http://${server.host}/v2/`);
  await discard(await transport.request(url, false, { signal }));
  await server[Symbol.asyncDispose]();
  const failure = async (request: () => Promise<unknown>): Promise<TransportError> => {
    try {
      await request();
    } catch (error) {
      if (error instanceof TransportError) return error;
      throw error;
    }
    throw new Error('it was answered');
  };
  assert.equal((await failure(() => transport.request(url, false, { signal }))).nobodyThere, false);
  using other = new Transport();
  let tries = 0;
  const { message } = await failure(() =>
    retrying(signal, () => {
      tries += 1;
      return other.request(url, false, { signal });
    }),
  );
  assert.equal(message, `${server.host} refuses connections (ECONNREFUSED)`);
  assert.equal(tries, 1);
});

test('errors that pass are waited for, as long as the registry asks', async () => {
  const answers = [503, 500, 429];
  let toldMs = 0;
  let waitedMs = 0;
  await pull((request, response) => {
    if (!request.url?.includes('/manifests/')) return false;
    const status = answers.shift();
    if (status === undefined) {
      waitedMs = Date.now() - toldMs;
      return false;
    }
    if (status === 429) toldMs = Date.now();
    response.writeHead(status, status === 429 ? { 'retry-after': '1' } : {}).end();
    return true;
  });
  assert.ok(waitedMs >= 990, `it waited ${waitedMs} ms`);
});

test('what does not pass is an error with what the registry says, its text made harmless', async () => {
  await refuses(
    (request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      response
        .writeHead(418, { 'content-type': 'application/json' })
        .end(JSON.stringify({ errors: [{ code: 'TEAPOT', message: 'short\u001b[31m and stout' }] }));
      return true;
    },
    'ERR_ARCBOX_REGISTRY',
    /^\P{Cc}*status 418 \(TEAPOT: short \[31m and stout\)$/u,
  );
  await refuses(
    (request, response) => {
      if (!isBlob(request)) return false;
      response.writeHead(500).end();
      return true;
    },
    'ERR_ARCBOX_REGISTRY',
    /status 500/,
  );
  await refuses(
    (request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      response.writeHead(404).end();
      return true;
    },
    'ERR_ARCBOX_IMAGE_NOT_FOUND',
    /has no app:1$/,
  );
});

test('what is not what its digest says is refused, wherever it comes', async () => {
  const answering =
    (matches: (request: IncomingMessage) => boolean, body: Buffer): Handler =>
    (request, response) => {
      if (!matches(request)) return false;
      response.end(body);
      return true;
    };
  const flipped = Buffer.from(blob);
  flipped[flipped.length - 1] = (flipped[flipped.length - 1] ?? 0) ^ 1;
  await refuses(answering(isBlob, flipped), 'ERR_ARCBOX_LAYER_INVALID', /unpacked/);
  const other = gzipSync(tar({ name: 'x', data: Buffer.alloc(blob.length * 2) }));
  await refuses(
    answering(isBlob, Buffer.concat([other, blob]).subarray(0, blob.length)),
    'ERR_ARCBOX_LAYER_INVALID',
    /./,
  );
  await refuses(answering(isBlob, Buffer.concat([blob, blob])), 'ERR_ARCBOX_DIGEST_MISMATCH', /more than/);
  const config = Buffer.from(image.config.toString().replace('sh', 'xx'));
  await refuses(
    answering((request) => request.url?.endsWith(sha256(image.config)) ?? false, config),
    'ERR_ARCBOX_DIGEST_MISMATCH',
    /the digest/,
  );
  await refuses(
    (request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      response.writeHead(200, { 'docker-content-digest': sha256('another') }).end(image.manifest());
      return true;
    },
    'ERR_ARCBOX_DIGEST_MISMATCH',
    /manifest/,
  );
});

test('manifests that are none are refused', async () => {
  for (const [body, why] of [
    ['{', /not JSON/],
    ['[]', /not an object/],
    ['{"schemaVersion":1}', /schema 1/],
    ['{"mediaType":"text/plain"}', /no container image/],
    [
      JSON.stringify({
        layers: [],
        config: { mediaType: 'application/x-helm', digest: sha256(''), size: 1 },
      }),
      /no container image/,
    ],
    [JSON.stringify({ layers: [{ digest: '../../etc/passwd', size: 1 }] }), /no sha256 digest/],
    [JSON.stringify({ layers: [{ digest: sha256(''), size: -1 }] }), /no size/],
    [
      JSON.stringify({ layers: Array.from({ length: 128 }, () => ({ digest: sha256(''), size: 1 })) }),
      /128 layers/,
    ],
    [' '.repeat(4 * 1024 * 1024 + 1), /more than/],
  ] as const) {
    await using server = await FakeServer.start((request, response) => {
      if (request.url === '/v2/') response.end();
      else response.writeHead(200, { 'content-type': MEDIA_TYPES.ociManifest }).end(body);
    });
    await withStore(async ({ store }) => {
      await assert.rejects(
        store.pull(`${server.host}/app:1`),
        (error) => error instanceof ImageError && why.test(error.message),
        String(why),
      );
    });
  }
});

test('redirects: followed without the credentials, never from https to http', async () => {
  let authorization: string | undefined = 'none asked';
  await using elsewhere = await FakeServer.start((request, response) => {
    authorization = request.headers.authorization;
    sendBlob(request, response);
  });
  await pull((request, response) => {
    if (request.headers.authorization === undefined && request.url?.includes('/manifests/')) {
      response
        .writeHead(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` })
        .end();
      return true;
    }
    if (request.url?.startsWith('/token')) {
      response.end('{"token":"secret"}');
      return true;
    }
    if (!isBlob(request)) return false;
    assert.equal(request.headers.authorization, 'Bearer secret');
    response.writeHead(307, { location: `http://${elsewhere.host}${request.url}` }).end();
    return true;
  });
  assert.equal(authorization, undefined);
});

test('a pull that is cancelled ends at once', async () => {
  const controller = new AbortController();
  await using server = await serving((request, response) => {
    if (!isBlob(request)) return false;
    response.writeHead(200, { 'content-length': blob.length });
    response.write(blob.subarray(0, 2000));
    controller.abort();
    return true;
  });
  await withStore(async ({ store }) => {
    await assert.rejects(
      store.pull(`${server.host}/app:1`, { signal: controller.signal }),
      (error) => error instanceof ImageError && error.code === 'ERR_ARCBOX_CANCELLED',
    );
  });
});

test('challenges are read as they come', () => {
  assert.deepEqual(parseChallenges('Basic realm="a, b"'), [
    { scheme: 'basic', parameters: { realm: 'a, b' } },
  ]);
  assert.deepEqual(parseChallenges('Negotiate, Bearer realm="https://x/\\"y\\"",service=z , Basic'), [
    { scheme: 'bearer', parameters: { realm: 'https://x/"y"', service: 'z' } },
    { scheme: 'basic', parameters: {} },
  ]);
  for (const nonsense of ['', ',,', '=', 'Bearer realm="', '"', undefined]) parseChallenges(nonsense);
});

test('the time between tries grows, and a registry’s wish counts within a limit', () => {
  for (let tried = 1; tried < 10; tried += 1) {
    const delay = retryDelayMs(tried, undefined);
    assert.ok(delay >= Math.min(100 * 2 ** (tried - 1), 10_000) && delay <= 15_000);
  }
  assert.equal(retryDelayMs(1, '7'), 7000);
  assert.equal(retryDelayMs(1, '100000'), 60_000);
  assert.ok(retryDelayMs(1, new Date(Date.now() + 5000).toUTCString()) > 3000);
  assert.ok(retryDelayMs(1, 'nonsense') < 200);
});
