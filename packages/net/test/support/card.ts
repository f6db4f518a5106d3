/** A machine's card: a Unix socket that a network worker connects to, with frames made by hand at its other end. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { putU32, u32 } from '../../src/wire/bytes.ts';

const PREFIX_BYTES = 4;

export class Card implements AsyncDisposable {
  readonly path: string;
  readonly #directory: string;
  readonly #server: Server;
  #cable: Socket | undefined;
  #bytes: Buffer = Buffer.alloc(0);

  private constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, 'nic');
    this.#server = createServer();
  }

  static async create(): Promise<Card> {
    const card = new Card(mkdtempSync(join(tmpdir(), 'arcbox-card-')));
    card.#server.listen(card.path);
    card.#server.on('connection', (cable) => {
      card.#cable = cable;
      cable.pause();
    });
    await once(card.#server, 'listening');
    return card;
  }

  send(frame: Uint8Array): void {
    const prefix = new Uint8Array(PREFIX_BYTES);
    putU32(prefix, 0, frame.length);
    this.#cable?.write(Buffer.concat([prefix, frame]));
  }

  /** The next frame for the machine. */
  async next(): Promise<Uint8Array> {
    const cable = this.#cable;
    if (cable === undefined) throw new Error('nobody has plugged the card in');
    for (;;) {
      const end = this.#bytes.length < PREFIX_BYTES ? Infinity : PREFIX_BYTES + u32(this.#bytes, 0);
      if (this.#bytes.length >= end) {
        const frame = this.#bytes.subarray(PREFIX_BYTES, end);
        this.#bytes = this.#bytes.subarray(end);
        return frame;
      }
      const piece = cable.read() as Buffer | null;
      if (piece === null) await once(cable, 'readable');
      else this.#bytes = Buffer.concat([this.#bytes, piece]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cable?.destroy();
    this.#server.close();
    await once(this.#server, 'close');
    rmSync(this.#directory, { recursive: true });
  }
}
