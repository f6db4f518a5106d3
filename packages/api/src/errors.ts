/** Errors of the daemon and of its clients; engine and image errors pass through with their own codes. */
export type ApiErrorCode =
  | 'ERR_ARCBOX_DAEMON_RUNNING'
  | 'ERR_ARCBOX_DAEMON_UNREACHABLE'
  | 'ERR_ARCBOX_DAEMON_START'
  | 'ERR_ARCBOX_DAEMON_STOP'
  | 'ERR_ARCBOX_STREAM_PROTOCOL'
  | 'ERR_ARCBOX_DETACH_KEYS'
  | 'ERR_ARCBOX_INTERNAL';

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: ApiErrorCode;

  constructor(code: ApiErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What a service of the daemon refused, as its client sees it. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError';
  /** `ERR_ARCBOX_…`. */
  readonly code: string;
  /** 125, 126 or 127: what a command that fails for this reason exits with. */
  readonly exitCode: number;

  constructor(code: string, message: string, exitCode: number) {
    super(message);
    this.code = code;
    this.exitCode = exitCode;
  }
}
