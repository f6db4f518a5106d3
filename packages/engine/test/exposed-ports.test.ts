import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Image, parseImageConfig } from '@arcbox/image';
import { withPorts } from '../src/container/exposed-ports.ts';
import { checkHostOptions } from '../src/container/host-options.ts';

function exposing(...ports: string[]): Image {
  const config = { config: { ExposedPorts: Object.fromEntries(ports.map((port) => [port, {}])) } };
  return { id: 'sha256:0', config: parseImageConfig(JSON.stringify(config), 'a test') } as unknown as Image;
}

const none = checkHostOptions({});

test('what is exposed: by the image, by whoever creates the container, by what is published', () => {
  const host = checkHostOptions({ publish: ['8080:80', '127.0.0.1::443'] });
  const { exposedPorts, host: same } = withPorts(
    host,
    ['53/udp', '7000-7002', '80'],
    exposing('80', '9/tcp'),
  );
  assert.deepEqual(exposedPorts, ['9/tcp', '53/udp', '80/tcp', '443/tcp', '7000-7002/tcp']);
  assert.equal(same, host, 'nothing is published that nobody asked for');
  assert.throws(() => withPorts(none, ['80:80'], exposing()), /"80:80" cannot be exposed/);
  assert.throws(() => withPorts(none, ['0'], exposing()), /0 is no port/);
});

test('-P publishes what is exposed and not published yet, at any port of the host', () => {
  const all = checkHostOptions({ publish: ['8080:80'], publishAll: true });
  const { host } = withPorts(all, ['7000-7001/udp'], exposing('80/tcp', '443/tcp'));
  assert.deepEqual(host.publish, ['8080:80', '443/tcp', '7000/udp', '7001/udp']);
  const alone = checkHostOptions({ networkMode: 'host', publishAll: true });
  assert.throws(() => withPorts(alone, ['80'], exposing()), /with the network host the container is in none/);
  assert.deepEqual(withPorts(alone, [], exposing()).host.publish, []);
});

test('an image that exposes what cannot be published here runs all the same', () => {
  const image = exposing('132/sctp', '10000-20000/udp');
  assert.deepEqual(withPorts(none, [], image).exposedPorts, ['10000-20000/udp']);
  const all = checkHostOptions({ publishAll: true });
  assert.throws(() => withPorts(all, [], image), /exposes 132\/sctp, which cannot be published/);
});
