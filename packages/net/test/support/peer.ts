/** A TCP peer that does exactly what the test says, and never anything by itself. */
import { TCP_ACK, TCP_SYN } from '../../src/wire/tcp.ts';
import { type IpOptions, MSS_1460, type Parsed, parse, type Segment, tcp } from './frames.ts';
import type { FakeStream, Lab } from './lab.ts';

export class Peer {
  readonly lab: Lab;
  readonly options: IpOptions;
  sequence: number;
  ack = 0;
  window = 0xffff;
  readonly fromPort: number;
  readonly toPort: number;

  constructor(lab: Lab, sequence = 1000, fromPort = 40_000, toPort = 80, options: IpOptions = {}) {
    this.lab = lab;
    this.sequence = sequence;
    this.fromPort = fromPort;
    this.toPort = toPort;
    this.options = options;
  }

  /** What the stack answered to everything so far, TCP only. */
  take(): Parsed[] {
    return this.lab
      .take()
      .map(parse)
      .filter(({ protocol }) => protocol === 6);
  }

  send(segment: Partial<Segment> = {}): void {
    const { fromPort, toPort, window } = this;
    this.lab.link.deliver(
      tcp(
        { fromPort, toPort, window, sequence: this.sequence, ack: this.ack, flags: TCP_ACK, ...segment },
        this.options,
      ),
    );
  }

  /** Sends data and counts it. */
  data(bytes: Uint8Array | string, flags = TCP_ACK): void {
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    this.send({ data, flags });
    this.sequence = (this.sequence + data.length) >>> 0;
  }

  syn(options: readonly number[] = MSS_1460): void {
    this.send({ flags: TCP_SYN, ack: 0, options });
  }

  /** The whole handshake; answers with the host's stream. */
  async open(options: readonly number[] = MSS_1460): Promise<FakeStream> {
    this.syn(options);
    await settle();
    const answer = this.take().at(-1);
    if (answer?.flags !== (TCP_SYN | TCP_ACK)) throw new Error(`no SYN-ACK but ${answer?.flags}`);
    this.sequence = (this.sequence + 1) >>> 0;
    this.ack = (answer.sequence + 1) >>> 0;
    this.send();
    const stream = this.lab.host.streams.at(-1);
    if (stream === undefined) throw new Error('nobody was dialled');
    return stream;
  }
}

/** Lets microtasks run, which is when the fake host answers. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 8; i += 1) await undefined;
}
