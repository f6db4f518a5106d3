/** Stable codes of what this package throws. */
export type VmErrorCode =
  /** The configuration cannot be a machine: a value is out of range, a file is missing. */
  | 'ERR_ARCBOX_VM_CONFIG'
  /** The host cannot run the machine: QEMU is missing, a limit cannot be set. */
  | 'ERR_ARCBOX_VM_HOST'
  /** The machine started and ended before its agent answered. */
  | 'ERR_ARCBOX_VM_BOOT'
  /** The agent did not answer in time. */
  | 'ERR_ARCBOX_VM_TIMEOUT'
  /** The call is not allowed in the machine's state. */
  | 'ERR_ARCBOX_VM_STATE'
  /** There is no such machine any more. */
  | 'ERR_ARCBOX_VM_GONE'
  /** The VMM refused a command or broke its protocol. */
  | 'ERR_ARCBOX_VM_MONITOR'
  /** A snapshot could not be taken or loaded. */
  | 'ERR_ARCBOX_VM_SNAPSHOT'
  /** A disk could not be attached or detached. */
  | 'ERR_ARCBOX_VM_DISK';

export class VmError extends Error {
  override readonly name = 'VmError';
  readonly code: VmErrorCode;

  constructor(code: VmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What an unknown thrown value says, for a message around it. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
