/** Ports that a container exposes: its image's, those that were given, and those that are published. */
import type { Image } from '@arcbox/image';
import { EngineError } from '../errors.ts';
import { OPTION_ENTRIES_MAX } from '../limits.ts';
import { portMappings } from '../network/port-bindings.ts';
import { checkHostOptions, type HostOptions } from './host-options.ts';

export interface Exposed {
  /** With what `publishAll` publishes. */
  readonly host: HostOptions;
  /** `80/tcp`, `8000-8010/udp`; in the order of their numbers. */
  readonly exposedPorts: readonly string[];
}

/** What can be published; an image may expose others (`132/sctp`), and that is no reason not to run it. */
const KNOWN = /^\d{1,5}(-\d{1,5})?(\/(tcp|udp))?$/;

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT`. */
export function withPorts(host: HostOptions, given: readonly string[], image: Image): Exposed {
  const ofImage = image.config.exposedPorts;
  const bad = given.find((port) => !KNOWN.test(port));
  if (bad !== undefined)
    throw invalid(`${JSON.stringify(bad)} cannot be exposed; write 80, 8000-8010 or 53/udp`);
  if (given.length > OPTION_ENTRIES_MAX)
    throw invalid(`${given.length} ports to expose; the limit is ${OPTION_ENTRIES_MAX}`);
  portMappings(given);
  const published = portNames(host.publish);
  const known = [...ofImage.filter((port) => KNOWN.test(port)), ...given].map(withProtocol);
  const exposedPorts = [...new Set([...known, ...published])].sort(
    (a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10),
  );
  if (!host.publishAll) return { host, exposedPorts };
  const other = ofImage.find((port) => !KNOWN.test(port));
  if (other !== undefined)
    throw invalid(`the image exposes ${other}, which cannot be published; publish the others with -p`);
  const missing = new Set(portNames(exposedPorts)).difference(new Set(published));
  // Once more, since what holds for ports that were named holds for these.
  return { host: checkHostOptions({ ...host, publish: [...host.publish, ...missing] }), exposedPorts };
}

function withProtocol(port: string): string {
  return port.includes('/') ? port : `${port}/tcp`;
}

/** One for each port, ranges spelled out. */
function portNames(specs: readonly string[]): string[] {
  return portMappings(specs).map(({ containerPort, protocol }) => `${containerPort}/${protocol}`);
}

function invalid(message: string): EngineError {
  return new EngineError('ERR_ARCBOX_INVALID_ARGUMENT', message);
}
