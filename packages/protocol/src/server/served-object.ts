import type { MessageInitShape } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import {
  type ObjectInfo,
  ObjectInfo_Kind,
  ObjectInfoSchema,
  type WaitResponseSchema,
} from '../gen/arcbox/agent/v1/agent_pb.ts';
import { InputPort, type InputSink } from './input-port.ts';
import { OutputLog } from './output-log.ts';

export type ObjectEndInit = MessageInitShape<typeof WaitResponseSchema>;

export interface ServedObjectOptions {
  readonly id: string;
  /** Default: a process. */
  readonly kind?: ObjectInfo_Kind;
  readonly pid?: number;
  /** Channel 0; without it the object takes no input. */
  readonly input?: InputSink;
}

/** An object of an agent written in TypeScript: three channels and an end. It outlives connections. */
export class ServedObject {
  readonly id: string;
  readonly kind: ObjectInfo_Kind;
  readonly pid: number;
  readonly input: InputPort | undefined;
  readonly output = new OutputLog();
  readonly error = new OutputLog();
  /** Ends the stream that is attached; set by the server. */
  detach: (() => void) | undefined;
  readonly #end = Promise.withResolvers<ObjectEndInit>();
  #ended = false;

  constructor(options: ServedObjectOptions) {
    this.id = options.id;
    this.kind = options.kind ?? ObjectInfo_Kind.PROCESS;
    this.pid = options.pid ?? 0;
    this.input = options.input === undefined ? undefined : new InputPort(options.input);
  }

  /** What `Wait` answers. */
  get end(): Promise<ObjectEndInit> {
    return this.#end.promise;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The object has ended; both outputs are finished. The first call counts. */
  finish(end: ObjectEndInit): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#end.resolve(end);
    this.output.finish();
    this.error.finish();
  }

  info(): ObjectInfo {
    return create(ObjectInfoSchema, {
      id: this.id,
      kind: this.kind,
      pid: this.pid,
      ended: this.ended,
      inputAcked: BigInt(this.input?.received ?? 0),
      outputAcked: BigInt(this.output.acked),
      errorAcked: BigInt(this.error.acked),
    });
  }
}
