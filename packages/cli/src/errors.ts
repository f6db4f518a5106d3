/** A refusal of the command itself: one sentence on stderr, and what to exit with. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly code = 'ERR_ARCBOX_USAGE';
  readonly exitCode: number;

  constructor(message: string, exitCode = 125) {
    super(message);
    this.exitCode = exitCode;
  }
}
