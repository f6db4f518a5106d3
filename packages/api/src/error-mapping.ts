/** From what the engine throws to what a service answers: a Connect code for machines in between, our code and an exit code. */
import { Code, ConnectError } from '@connectrpc/connect';
import { ErrorDetailSchema } from './gen/arcbox/v1/error_pb.ts';

const CODES: Readonly<Record<string, Code>> = {
  ERR_ARCBOX_INVALID_ARGUMENT: Code.InvalidArgument,
  ERR_ARCBOX_REFERENCE_INVALID: Code.InvalidArgument,
  ERR_ARCBOX_IMAGE_NOT_FOUND: Code.NotFound,
  ERR_ARCBOX_CONTAINER_NOT_FOUND: Code.NotFound,
  ERR_ARCBOX_MACHINE_NOT_FOUND: Code.NotFound,
  ERR_ARCBOX_CONTAINER_NAME_IN_USE: Code.AlreadyExists,
  ERR_ARCBOX_CONTAINER_STATE: Code.FailedPrecondition,
  ERR_ARCBOX_COMMAND_NOT_FOUND: Code.FailedPrecondition,
  ERR_ARCBOX_COMMAND_NOT_EXECUTABLE: Code.FailedPrecondition,
  ERR_ARCBOX_LIMIT: Code.ResourceExhausted,
  ERR_ARCBOX_LOG_TRUNCATED: Code.OutOfRange,
  ERR_ARCBOX_MACHINE_LOST: Code.Unavailable,
  ERR_ARCBOX_SHUTTING_DOWN: Code.Unavailable,
};

const EXIT_CODES: Readonly<Record<string, number>> = {
  ERR_ARCBOX_COMMAND_NOT_FOUND: 127,
  ERR_ARCBOX_COMMAND_NOT_EXECUTABLE: 126,
};

export interface PublicError {
  readonly code: string;
  readonly message: string;
  readonly exitCode: number;
}

/** What may be told of any thrown value. */
export function publicError(error: unknown): PublicError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  const known = code.startsWith('ERR_ARCBOX_');
  return {
    code: known ? code : 'ERR_ARCBOX_INTERNAL',
    message: error instanceof Error ? error.message : String(error),
    exitCode: EXIT_CODES[code] ?? 125,
  };
}

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  const { code, message, exitCode } = publicError(error);
  return new ConnectError(
    message,
    CODES[code] ?? Code.Internal,
    undefined,
    [{ desc: ErrorDetailSchema, value: { code, exitCode } }],
    error,
  );
}
