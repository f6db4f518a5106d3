export type { Inside, InsideDatagrams, InsideStream } from './inside.ts';
export { type PublishedPort, PublishedPorts, type PublishOptions } from './publisher.ts';
export { type PortMapping, type PortProtocol, parsePortSpec } from './spec.ts';
export type { PortCounters } from './tcp.ts';
