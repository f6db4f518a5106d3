import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalName, familiarName, ImageError, parseReference, registryDomain } from '../src/index.ts';

/** So that a failure can be repeated, and every run is the same. */
const SEED = 20_261_122;

const digest = `sha256:${'ab'.repeat(32)}`;

test('short names mean what Docker says they mean', () => {
  const table: readonly [string, string, string][] = [
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/library/busybox:latest', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['team/app', 'docker.io/team/app:latest', 'team/app:latest'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/app:2', 'localhost:5000/app:2', 'localhost:5000/app:2'],
    ['ghcr.io/a/b/c', 'ghcr.io/a/b/c:latest', 'ghcr.io/a/b/c:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest', '[::1]:5000/app:latest'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`, `busybox@${digest}`],
    [`busybox:1@${digest}`, `docker.io/library/busybox:1@${digest}`, `busybox:1@${digest}`],
    ['a__b/c-d--e', 'docker.io/a__b/c-d--e:latest', 'a__b/c-d--e:latest'],
  ];
  for (const [text, canonical, familiar] of table) {
    const reference = parseReference(text);
    assert.equal(canonicalName(reference), canonical, text);
    assert.equal(familiarName(reference), familiar, text);
  }
});

test('what is not a reference is refused with the reason', () => {
  const table: readonly [string, RegExp][] = [
    ['', /empty/],
    ['BusyBox', /lower case/],
    ['busybox:', /tag/],
    ['busybox:-a', /tag/],
    ['busybox@sha256:12', /digest/],
    ['a//b', /repository name/],
    ['/a', /repository name/],
    ['a/', /repository name/],
    ['a_/b', /repository name/],
    ['-x.example/app', /not a registry/],
    ['busybox with space', /repository name/],
    ['ab'.repeat(32), /image ID/],
    [`a:${'t'.repeat(129)}`, /longer than 128/],
    ['a'.repeat(250), /longer than 255/],
  ];
  for (const [text, why] of table) {
    assert.throws(
      () => parseReference(text),
      (error) =>
        error instanceof ImageError &&
        error.code === 'ERR_ARCBOX_REFERENCE_INVALID' &&
        why.test(error.message),
      text,
    );
  }
});

test('any text is either refused with our error or has a canonical name that parses to itself', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-zA-Z0-9.:/@_-]{1,40}$/)), (text) => {
      let canonical: string;
      try {
        canonical = canonicalName(parseReference(text));
      } catch (error) {
        assert.ok(error instanceof ImageError);
        return;
      }
      assert.equal(canonicalName(parseReference(canonical)), canonical);
      assert.equal(canonicalName(parseReference(familiarName(parseReference(text)))), canonical);
    }),
    { seed: SEED, numRuns: 2000 },
  );
});

test('a registry by itself, also as people copy it from a browser', () => {
  const table: readonly [string, string][] = [
    ['', 'docker.io'],
    ['docker.io', 'docker.io'],
    ['https://index.docker.io/v1/', 'docker.io'],
    ['registry-1.docker.io', 'docker.io'],
    ['http://localhost:5000/', 'localhost:5000'],
    ['registry.example.com', 'registry.example.com'],
    ['intranet', 'intranet'],
    ['[::1]:5000', '[::1]:5000'],
  ];
  for (const [text, domain] of table) assert.equal(registryDomain(text), domain, text);
  for (const text of ['a b', 'ada@example.com', 'x:y', '-x'])
    assert.throws(() => registryDomain(text), ImageError);
});
