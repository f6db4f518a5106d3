export { type PortMapping, type PortProtocol, parsePortSpec } from './spec.ts';
