/** Every error this package throws carries one of these codes; they are part of the API. */
export type EngineErrorCode =
  | 'ERR_ARCBOX_INVALID_ARGUMENT'
  | 'ERR_ARCBOX_CONFIG'
  | 'ERR_ARCBOX_BOOT_ASSETS'
  | 'ERR_ARCBOX_STATE_DB'
  | 'ERR_ARCBOX_LIMIT'
  | 'ERR_ARCBOX_NO_SPACE'
  | 'ERR_ARCBOX_NO_MEMORY'
  | 'ERR_ARCBOX_UNSUPPORTED'
  | 'ERR_ARCBOX_VOLUME'
  | 'ERR_ARCBOX_VOLUME_NOT_FOUND'
  | 'ERR_ARCBOX_VOLUME_IN_USE'
  | 'ERR_ARCBOX_MACHINE_STATE'
  | 'ERR_ARCBOX_SHUTTING_DOWN'
  | 'ERR_ARCBOX_CONTAINER_NOT_FOUND'
  | 'ERR_ARCBOX_CONTAINER_NAME_IN_USE'
  | 'ERR_ARCBOX_CONTAINER_STATE'
  | 'ERR_ARCBOX_CONTAINER_START'
  | 'ERR_ARCBOX_PATH_NOT_FOUND'
  | 'ERR_ARCBOX_ARCHIVE'
  | 'ERR_ARCBOX_EXEC_NOT_FOUND'
  | 'ERR_ARCBOX_EXEC_STATE'
  | 'ERR_ARCBOX_EXEC_START'
  | 'ERR_ARCBOX_COMMAND_NOT_FOUND'
  | 'ERR_ARCBOX_COMMAND_NOT_EXECUTABLE'
  | 'ERR_ARCBOX_LOG_TRUNCATED'
  | 'ERR_ARCBOX_LOG_CORRUPT'
  | 'ERR_ARCBOX_MACHINE_NOT_FOUND'
  | 'ERR_ARCBOX_MACHINE_NAME_IN_USE'
  | 'ERR_ARCBOX_MACHINE_IN_USE'
  | 'ERR_ARCBOX_MACHINE_BOOT'
  | 'ERR_ARCBOX_MACHINE_LOST'
  | 'ERR_ARCBOX_NETWORK'
  | 'ERR_ARCBOX_NETWORK_NOT_FOUND'
  | 'ERR_ARCBOX_NETWORK_NAME_IN_USE'
  | 'ERR_ARCBOX_NETWORK_IN_USE';

export class EngineError extends Error {
  override readonly name = 'EngineError';
  readonly code: EngineErrorCode;

  constructor(code: EngineErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** For messages: what an unknown thrown value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
