/** Capabilities by name, as <linux/capability.h> numbers them. */
import { EngineError } from '../errors.ts';

/** In the order of their numbers, from 0. */
export const CAPABILITY_NAMES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
] as const;

/** Docker's default set. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

const ALL = 'ALL';

/**
 * Docker's `--cap-add` and `--cap-drop`: `ALL` or names with or without `CAP_`, in any case. What is added explicitly
 * wins over dropping all, what is dropped explicitly over adding all. Throws `ERR_ARCBOX_INVALID_ARGUMENT`.
 */
export function capabilitySet(add: readonly string[], drop: readonly string[]): string[] {
  const added = add.map(capabilityName);
  const dropped = drop.map(capabilityName);
  const base: readonly string[] = added.includes(ALL)
    ? CAPABILITY_NAMES
    : dropped.includes(ALL)
      ? []
      : DEFAULT_CAPABILITIES;
  const names = new Set(base.filter((name) => !dropped.includes(name)));
  for (const name of added) if (name !== ALL) names.add(name);
  return [...names];
}

/** As the agent takes them: bit n is capability n. */
export function capabilityBits(names: readonly string[]): bigint {
  return names.reduce((bits, name) => {
    const number = (CAPABILITY_NAMES as readonly string[]).indexOf(name);
    return number < 0 ? bits : bits | (1n << BigInt(number));
  }, 0n);
}

function capabilityName(text: string): string {
  const upper = text.toUpperCase();
  if (upper === ALL) return ALL;
  const name = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
  if ((CAPABILITY_NAMES as readonly string[]).includes(name)) return name;
  throw new EngineError(
    'ERR_ARCBOX_INVALID_ARGUMENT',
    `${JSON.stringify(text)} is not a capability; see capabilities(7), or use ALL`,
  );
}
