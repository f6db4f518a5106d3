import type { MessageInitShape } from '@bufbuild/protobuf';
import type { OpSchema } from './gen/arcbox/agent/v1/agent_pb.ts';

/** Plain objects (not messages made before), that take a number wherever the message has a 64-bit integer. */
type Plain<T> = T extends bigint
  ? bigint | number
  : T extends Uint8Array
    ? Uint8Array
    : T extends readonly (infer Item)[]
      ? readonly Plain<Item>[]
      : T extends { readonly $typeName: string }
        ? never
        : T extends object
          ? { readonly [Key in keyof T as Key extends '$typeName' ? never : Key]: Plain<T[Key]> }
          : T;

type OpOneof = NonNullable<Extract<MessageInitShape<typeof OpSchema>, { $typeName?: never }>['op']>;

type OpCase<T> = T extends { case: infer Case extends string; value?: infer Value }
  ? { readonly case: Case; readonly value: Plain<Value> }
  : never;

/**
 * An operation of a batch, as `{ case: 'mkdir', value: { path, mode: 0o755, parents: true } }`. Fields that are left
 * out have their zero value; 64-bit fields take numbers or bigints.
 */
export type OpInput = OpCase<OpOneof>;
