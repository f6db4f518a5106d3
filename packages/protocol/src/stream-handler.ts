import type { ProtocolError } from './errors.ts';
import type { Response } from './gen/ttrpc/ttrpc_pb.ts';

/** What happens on one stream. `data` is valid until the handler returns. */
export interface StreamHandler {
  onResponse(response: Response): void;
  onData(flags: number, data: Uint8Array): void;
  onEnd(error: ProtocolError): void;
}
