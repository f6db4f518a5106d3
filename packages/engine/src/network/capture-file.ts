/** Frames of a machine, or of one container in it, as a pcapng file that grows. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { Capture } from '@arcbox/net/pcapng';
import type { NetworkPlane } from './network-plane.ts';

const MAC_BYTES = 6;

export interface CaptureOptions {
  readonly machine: string;
  /** Frames from or to one of these only: `02:42:…`. */
  readonly macs?: readonly string[];
  /** Longer frames are cut to this. */
  readonly snapBytes?: number;
  readonly signal: AbortSignal;
}

export interface CapturePiece {
  readonly data: Uint8Array<ArrayBuffer>;
  /** Frames of the machine so far that are not in the file, since its reader is too slow. */
  readonly dropped: number;
}

/** Captures until `signal`, or until nobody reads any more. Throws `ERR_ARCBOX_MACHINE_STATE`. */
export async function* captureFile(
  plane: NetworkPlane,
  options: CaptureOptions,
): AsyncGenerator<CapturePiece> {
  const { machine, snapBytes, signal } = options;
  const macs = options.macs?.map((text) => Buffer.from(text.replaceAll(':', ''), 'hex'));
  const file = new PassThrough();
  const capture = new Capture(file, snapBytes === undefined ? {} : { snapBytes });
  let lostAtFirst: number | undefined;
  let lost = 0;
  const tap = await plane.capture(machine, ({ frame, direction, timeUs, lost: lostByTap }) => {
    // The tap may be older than this capture of it.
    lostAtFirst ??= lostByTap;
    lost = lostByTap - lostAtFirst;
    if (macs !== undefined && !macs.some((mac) => hasMac(frame, mac))) return;
    capture.frame(machine, frame, direction, timeUs * 1000n);
  });
  try {
    while (!signal.aborted) {
      const data: unknown = file.read();
      if (data instanceof Uint8Array) yield { data: Uint8Array.from(data), dropped: capture.dropped + lost };
      else await once(file, 'readable', { signal }).catch(() => {});
    }
  } finally {
    await tap[Symbol.asyncDispose]();
    file.destroy();
  }
}

/** Whether a frame is from or to a hardware address. */
function hasMac(frame: Uint8Array, mac: Uint8Array): boolean {
  return [0, MAC_BYTES].some((at) => Buffer.compare(frame.subarray(at, at + MAC_BYTES), mac) === 0);
}
