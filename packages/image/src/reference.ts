/**
 * Image references by Docker's rules.
 *
 * What a user types is short: `busybox`, `team/app:2`, `localhost:5000/app@sha256:…`. The first component is a
 * registry only when it looks like a host name (it has a dot, a port, an upper-case letter, or is `localhost`);
 * otherwise the registry is `docker.io`, and a name of one component lives in `library/` there. Without a tag and
 * without a digest the tag is `latest`.
 */
import { ImageError } from './errors.ts';
import { REPOSITORY_LENGTH_MAX, TAG_LENGTH_MAX } from './limits.ts';

export const DEFAULT_DOMAIN = 'docker.io';
const LEGACY_DEFAULT_DOMAIN = 'index.docker.io';
const DOCKER_HUB_NAMES = new Set([DEFAULT_DOMAIN, LEGACY_DEFAULT_DOMAIN, 'registry-1.docker.io']);
const OFFICIAL_PREFIX = 'library/';
export const DEFAULT_TAG = 'latest';

const DOMAIN =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/;
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[\w][\w.-]*$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export interface Reference {
  /** `docker.io`, `registry.example.com:5000`. */
  readonly domain: string;
  /** Without the domain: `library/busybox`. */
  readonly path: string;
  /** Absent only when there is a digest. */
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

/** Parses what a user typed. Throws `ImageError` `ERR_ARCBOX_REFERENCE_INVALID`. */
export function parseReference(text: string): Reference {
  const fail = (why: string): never => {
    throw new ImageError(
      'ERR_ARCBOX_REFERENCE_INVALID',
      `invalid image reference ${JSON.stringify(text)}: ${why}`,
    );
  };
  if (text === '') fail('it is empty');
  if (/^[0-9a-f]{64}$/.test(text)) fail('64 hex digits are an image ID, not a name');

  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest)) fail('the part after @ is not a digest of the form sha256:<64 hex digits>');
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  // A colon before the last slash belongs to the registry's port.
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag))
      fail('the tag may have letters, digits, _, . and -, and begins with a letter, digit or _');
    if (tag.length > TAG_LENGTH_MAX) fail(`the tag is longer than ${TAG_LENGTH_MAX} characters`);
  }

  let domain = DEFAULT_DOMAIN;
  let path = rest;
  const slash = rest.indexOf('/');
  const first = slash < 0 ? '' : rest.slice(0, slash);
  if (slash >= 0 && (/[.:A-Z]/.test(first) || first === 'localhost')) {
    domain = first;
    path = rest.slice(slash + 1);
  }
  if (domain === LEGACY_DEFAULT_DOMAIN) domain = DEFAULT_DOMAIN;
  if (!DOMAIN.test(domain)) fail(`${JSON.stringify(domain)} is not a registry`);
  if (domain === DEFAULT_DOMAIN && !path.includes('/')) path = OFFICIAL_PREFIX + path;
  if (/[A-Z]/.test(path)) fail('the repository name must be lower case');
  if (!path.split('/').every((component) => PATH_COMPONENT.test(component))) {
    fail('a repository name is made of lower-case letters and digits, separated by / . _ or -');
  }
  if (domain.length + 1 + path.length > REPOSITORY_LENGTH_MAX) {
    fail(`the name is longer than ${REPOSITORY_LENGTH_MAX} characters`);
  }
  if (tag === undefined && digest === undefined) tag = DEFAULT_TAG;
  return { domain, path, tag, digest };
}

/**
 * The registry that a user names by itself: `registry.example.com:5000`, also as the beginning of a URL; empty and all of
 * Docker Hub's own names: `docker.io`. Throws `ImageError` `ERR_ARCBOX_REFERENCE_INVALID`.
 */
export function registryDomain(text: string): string {
  const host = text
    .trim()
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/, '');
  if (host === '' || DOCKER_HUB_NAMES.has(host)) return DEFAULT_DOMAIN;
  if (DOMAIN.test(host)) return host;
  throw new ImageError(
    'ERR_ARCBOX_REFERENCE_INVALID',
    `${JSON.stringify(text)} is not a registry; it is a host such as registry.example.com:5000`,
  );
}

/** The full form: `docker.io/library/busybox:latest`. Two references are the same image name when this is equal. */
export function canonicalName(reference: Reference): string {
  return `${reference.domain}/${reference.path}${suffix(reference)}`;
}

/** The form users see: `busybox:latest`. */
export function familiarName(reference: Reference): string {
  return `${familiarRepository(reference)}${suffix(reference)}`;
}

/** Without tag and digest: `busybox`, `localhost:5000/app`. */
export function familiarRepository(reference: Reference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return `${reference.domain}/${reference.path}`;
  const { path } = reference;
  const short = path.startsWith(OFFICIAL_PREFIX) ? path.slice(OFFICIAL_PREFIX.length) : path;
  return short.includes('/') ? path : short;
}

function suffix(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  return reference.digest === undefined ? tag : `${tag}@${reference.digest}`;
}
