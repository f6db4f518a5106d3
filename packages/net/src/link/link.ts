/**
 * A link is a cable: frames of one virtual machine come out of it, and ours go in.
 *
 * Frames travel in batches, in the format that QEMU speaks on a stream (`-netdev stream`): each frame is preceded by
 * its length, 4 bytes, big-endian. A link that gets its frames one by one puts the length before each. What a link
 * delivers need not end where a frame ends.
 */

/** The side that user code may implement. */
export interface Link {
  /** For messages and counters. */
  readonly name: string;
  /** Called once, when the link is plugged in; from then on it may call `receiver`. */
  start(receiver: LinkReceiver): void;
  /**
   * Sends whole frames. True: it is done with the bytes. False: it still needs them and calls `receiver.sent()` when it
   * does not; until then this is not called again.
   */
  send(frames: Uint8Array): boolean;
  /** Releases everything. After it nothing is called any more. */
  close(): void;
}

/** The stack's side. */
export interface LinkReceiver {
  /** Where to put the bytes that came next: never empty, good until the next `received`. */
  space(): Uint8Array;
  /** Says that the first `count` bytes of `space()` have been filled. Everything that follows from them happens now. */
  received(count: number): void;
  /** The link is done with the batch for which `send` returned false. */
  sent(): void;
  /** The link is gone; it must not call anything after this. */
  closed(error?: Error): void;
}
