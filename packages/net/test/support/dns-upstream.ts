/** A resolver on loopback that answers as it is told to. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { type Answer, decode, encode } from 'dns-packet';
import type { Resolver } from '../../src/dns/index.ts';

export interface Told {
  readonly answers?: Answer[];
  readonly authorities?: Answer[];
  readonly additionals?: Answer[];
  readonly rcode?: number;
  /** Over UDP only. */
  readonly truncated?: boolean;
  /** Messages as they are, whatever they are. */
  readonly raw?: (query: Buffer) => Buffer[];
}

export interface TestUpstream extends AsyncDisposable {
  readonly resolver: Resolver;
  /** Names that were asked, with the transport. */
  readonly asked: string[];
  /** The ports that questions came from, and their ids. */
  readonly ports: Set<number>;
  readonly ids: Set<number>;
}

/** `undefined`: say nothing. */
export async function testUpstream(
  tell: (
    name: string,
    type: string,
    transport: 'udp' | 'tcp',
  ) => Told | undefined | Promise<Told | undefined>,
): Promise<TestUpstream> {
  const asked: string[] = [];
  const ports = new Set<number>();
  const ids = new Set<number>();
  const reply = async (query: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer[]> => {
    const { id = 0, questions = [] } = decode(query);
    const question = questions[0];
    if (question === undefined) return [];
    asked.push(`${transport} ${question.name} ${question.type}`);
    ids.add(id);
    const told = await tell(question.name, question.type, transport);
    if (told === undefined) return [];
    if (told.raw !== undefined) return told.raw(query);
    const { answers = [], authorities = [], additionals = [], rcode = 0 } = told;
    const flags = 0x0580 | rcode | (told.truncated === true && transport === 'udp' ? 0x0200 : 0);
    return [encode({ type: 'response', id, flags, questions, answers, authorities, additionals })];
  };
  const tcp = createServer((socket: Socket) => {
    socket.on('error', () => {});
    let pending = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      if (pending.length < 2 || pending.length < 2 + pending.readUInt16BE(0)) return;
      void reply(pending.subarray(2), 'tcp').then(([message]) => {
        if (message === undefined) return;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(message.length);
        // In two pieces, as networks do.
        socket.write(Buffer.concat([length, message.subarray(0, 5)]));
        socket.end(message.subarray(5));
      });
    });
  });
  const { port, udp } = await listenOnBoth(tcp);
  udp.on('message', (query, remote) => {
    ports.add(remote.port);
    void reply(query, 'udp').then((messages) => {
      for (const message of messages) udp.send(message, remote.port, remote.address);
    });
  });
  return {
    resolver: { address: '127.0.0.1', port },
    asked,
    ports,
    ids,
    async [Symbol.asyncDispose]() {
      udp.close();
      const closed = once(tcp, 'close');
      tcp.close();
      await closed;
    },
  };
}

/** One port for both: that the system gives it for TCP does not mean that it is free for UDP. */
async function listenOnBoth(tcp: Server): Promise<{ port: number; udp: dgram.Socket }> {
  for (;;) {
    tcp.listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    const bound = tcp.address();
    if (typeof bound !== 'object' || bound === null) throw new Error('not listening');
    const udp = dgram.createSocket('udp4');
    try {
      udp.bind(bound.port, '127.0.0.1');
      await once(udp, 'listening');
      return { port: bound.port, udp };
    } catch (error) {
      udp.close();
      tcp.close();
      await once(tcp, 'close');
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
}
