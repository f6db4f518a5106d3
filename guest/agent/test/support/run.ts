import assert from 'node:assert/strict';
import type { AgentClient, Attachment, ObjectEnd, OpInput, OpResult, OutputChannel } from '@arcbox/protocol';

export type SpawnInput = Extract<OpInput, { case: 'spawn' }>['value'];

/** An attached object whose output is gathered, and acknowledged as it comes. */
export class Gathered {
  static async attach(client: AgentClient, id: string): Promise<Gathered> {
    const gathered = new Gathered();
    gathered.#attachment = await client.attach(id, {
      onChunk: ({ channel, offset, data, eof }) => gathered.#take(channel, offset, Buffer.from(data), eof),
    });
    gathered.#ackAll();
    return gathered;
  }

  readonly ended: [boolean, boolean] = [false, false];
  readonly #pieces: [Buffer[], Buffer[]] = [[], []];
  readonly #received: [number, number] = [0, 0];
  #waiting: (() => void)[] = [];
  #attachment: Attachment | undefined;

  get attachment(): Attachment {
    if (this.#attachment === undefined) throw new Error('not attached yet');
    return this.#attachment;
  }

  bytes(channel: OutputChannel): Buffer {
    return Buffer.concat(this.#pieces[channel === 1 ? 0 : 1]);
  }

  get output(): string {
    return this.bytes(1).toString();
  }

  get error(): string {
    return this.bytes(2).toString();
  }

  /** Settles when what came so far fulfils the condition. */
  async until(fulfilled: (gathered: Gathered) => boolean): Promise<void> {
    while (!fulfilled(this)) {
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#waiting.push(resolve);
        }),
        this.attachment.closed.then(() => {
          if (!fulfilled(this)) throw new Error(`the stream ended: ${this.output} ${this.error}`);
        }),
      ]);
    }
  }

  #take(channel: OutputChannel, offset: number, data: Buffer, eof: boolean): void {
    const index = channel === 1 ? 0 : 1;
    this.#pieces[index].push(data);
    this.#received[index] = offset + data.length;
    if (eof) this.ended[index] = true;
    this.#ackAll();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  #ackAll(): void {
    this.#attachment?.ack(1, this.#received[0]);
    this.#attachment?.ack(2, this.#received[1]);
  }
}

export interface Finished extends ObjectEnd {
  readonly output: string;
  readonly error: string;
}

let count = 0;

/** A name that no other object of this test has. */
export function freshId(): string {
  count++;
  return `t${count}`;
}

const ENVIRONMENT = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];

/** `sh -c script` as a spawn operation. */
export function shell(script: string, more: Partial<SpawnInput> = {}): Extract<OpInput, { case: 'spawn' }> {
  return {
    case: 'spawn',
    value: { id: freshId(), argv: ['/bin/sh', '-c', script], env: ENVIRONMENT, cwd: '/', ...more },
  };
}

/** Runs it to its end, with all its output, and releases it. */
export async function run(
  client: AgentClient,
  operation: Extract<OpInput, { case: 'spawn' | 'execIn' }>,
  input?: Uint8Array,
): Promise<Finished> {
  const id = operation.case === 'spawn' ? operation.value.id : operation.value.spawn?.id;
  if (id === undefined) throw new Error('the operation names no object');
  await client.batch([operation]);
  const gathered = await Gathered.attach(client, id);
  if (input !== undefined) await gathered.attachment.write(input, { eof: true });
  const [end] = await Promise.all([client.wait(id), gathered.attachment.closed]);
  await client.batch([{ case: 'release', value: { id } }]);
  return { ...end, output: gathered.output, error: gathered.error };
}

type ResultValues = {
  [Result in Exclude<OpResult['result'], { case: undefined }> as Result['case']]: Result['value'];
};

/** The value of a result that must be of that kind. */
export function resultOf<Kind extends keyof ResultValues>(
  results: readonly OpResult[],
  index: number,
  kind: Kind,
): ResultValues[Kind] {
  const result = results[index]?.result;
  assert.equal(result?.case, kind);
  return result?.value as ResultValues[Kind];
}
