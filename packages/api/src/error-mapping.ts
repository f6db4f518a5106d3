/** From what the engine throws to what may be told of it: a Connect code for those in between, our code, an exit code. */

/** Codes of the Connect protocol, with their HTTP status. */
export const HTTP_STATUS = {
  invalid_argument: 400,
  failed_precondition: 400,
  out_of_range: 400,
  not_found: 404,
  already_exists: 409,
  resource_exhausted: 429,
  internal: 500,
  unavailable: 503,
} as const;

export type RpcCode = keyof typeof HTTP_STATUS;

const CODES: Readonly<Record<string, RpcCode>> = {
  ERR_ARCBOX_INVALID_ARGUMENT: 'invalid_argument',
  ERR_ARCBOX_REFERENCE_INVALID: 'invalid_argument',
  ERR_ARCBOX_IMAGE_NOT_FOUND: 'not_found',
  ERR_ARCBOX_IMAGE_AMBIGUOUS: 'invalid_argument',
  ERR_ARCBOX_IMAGE_CHANGE: 'invalid_argument',
  ERR_ARCBOX_IMAGE_PLATFORM: 'not_found',
  ERR_ARCBOX_IMAGE_IN_USE: 'failed_precondition',
  ERR_ARCBOX_IMAGE_EMBEDDED: 'failed_precondition',
  ERR_ARCBOX_IMAGE_LIMIT: 'resource_exhausted',
  ERR_ARCBOX_ARCHIVE_INVALID: 'invalid_argument',
  ERR_ARCBOX_LAYER_INVALID: 'invalid_argument',
  ERR_ARCBOX_DIGEST_MISMATCH: 'invalid_argument',
  ERR_ARCBOX_REGISTRY_DENIED: 'failed_precondition',
  ERR_ARCBOX_REGISTRY_UNREACHABLE: 'unavailable',
  ERR_ARCBOX_CONTAINER_NOT_FOUND: 'not_found',
  ERR_ARCBOX_MACHINE_NOT_FOUND: 'not_found',
  ERR_ARCBOX_EXEC_NOT_FOUND: 'not_found',
  ERR_ARCBOX_PATH_NOT_FOUND: 'not_found',
  ERR_ARCBOX_ARCHIVE: 'failed_precondition',
  ERR_ARCBOX_EXEC_STATE: 'failed_precondition',
  ERR_ARCBOX_EXEC_START: 'failed_precondition',
  ERR_ARCBOX_CONTAINER_NAME_IN_USE: 'already_exists',
  ERR_ARCBOX_NETWORK: 'failed_precondition',
  ERR_ARCBOX_NETWORK_NOT_FOUND: 'not_found',
  ERR_ARCBOX_NETWORK_NAME_IN_USE: 'already_exists',
  ERR_ARCBOX_NETWORK_IN_USE: 'failed_precondition',
  ERR_ARCBOX_CONTAINER_STATE: 'failed_precondition',
  ERR_ARCBOX_COMMAND_NOT_FOUND: 'failed_precondition',
  ERR_ARCBOX_COMMAND_NOT_EXECUTABLE: 'failed_precondition',
  ERR_ARCBOX_LIMIT: 'resource_exhausted',
  ERR_ARCBOX_NO_SPACE: 'resource_exhausted',
  ERR_ARCBOX_NO_MEMORY: 'resource_exhausted',
  ERR_ARCBOX_UNSUPPORTED: 'invalid_argument',
  ERR_ARCBOX_VOLUME_NOT_FOUND: 'not_found',
  ERR_ARCBOX_VOLUME_IN_USE: 'already_exists',
  ERR_ARCBOX_MACHINE_STATE: 'failed_precondition',
  ERR_ARCBOX_MACHINE_NAME_IN_USE: 'already_exists',
  ERR_ARCBOX_MACHINE_IN_USE: 'failed_precondition',
  ERR_ARCBOX_LOG_TRUNCATED: 'out_of_range',
  ERR_ARCBOX_MACHINE_LOST: 'unavailable',
  ERR_ARCBOX_SHUTTING_DOWN: 'unavailable',
};

const EXIT_CODES: Readonly<Record<string, number>> = {
  ERR_ARCBOX_COMMAND_NOT_FOUND: 127,
  ERR_ARCBOX_COMMAND_NOT_EXECUTABLE: 126,
  ERR_ARCBOX_EXEC_START: 126,
};

export interface PublicError {
  /** `ERR_ARCBOX_…`. */
  readonly code: string;
  readonly rpcCode: RpcCode;
  readonly message: string;
  readonly exitCode: number;
}

/** What may be told of any thrown value. */
export function publicError(error: unknown): PublicError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  return {
    code: code.startsWith('ERR_ARCBOX_') ? code : 'ERR_ARCBOX_INTERNAL',
    rpcCode: CODES[code] ?? 'internal',
    message: error instanceof Error ? error.message : String(error),
    exitCode: EXIT_CODES[code] ?? 125,
  };
}
