/** Every limit of this package, named. */

export const VCPUS_MAX = 64;
export const MEMORY_MIB_MIN = 64;
export const MEMORY_MIB_MAX = 1024 * 1024;
export const NAME_BYTES_MAX = 128;
export const KERNEL_COMMAND_LINE_BYTES_MAX = 2047;
export const DISK_ID_PATTERN: RegExp = /^[a-z0-9-]{1,20}$/;
export const MAC_PATTERN: RegExp = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;
export const MTU_MIN = 68;
export const MTU_MAX = 65535;
/** LUNs of the virtio-scsi controller that the driver gives out. */
export const HOT_DISKS_MAX = 255;
/** sizeof(sun_path) less the final NUL. */
export const SOCKET_PATH_BYTES_MAX = 107;
export const BOOT_TIMEOUT_MS_MAX = 10 * 60_000;
export const STOP_TIMEOUT_MS = 10_000;

/** A machine that a full disk of the host has stopped goes on after that, to find whether there is room now. */
export const FULL_DISK_RETRY_MS = 1000;

/** A line from QEMU's monitor. */
export const QMP_LINE_BYTES_MAX = 4 * 1024 * 1024;
export const QMP_PENDING_MAX = 64;
export const QMP_TIMEOUT_MS = 10_000;

/** For a socket of a machine whose queue is full: until QEMU, which may have to wait for a processor, takes it up. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** Between two tries. */
export const CONNECT_RETRY_MS_MAX = 50;

/** Everything the guardian may say: a few lines and the ends of four logs. */
export const LEASE_BYTES_MAX = 64 * 1024;
/** From starting the guardian to its word that the VMM runs. */
export const GUARDIAN_TIMEOUT_MS = 15_000;

/**
 * Translated code that QEMU keeps under TCG, MiB. It never shrinks, and its default is 1 GiB. All of it is thrown away
 * when it is full: with 24 a container's start, which does not quite fit, takes 325 ms, with 32 to 48 it takes 50 to 60.
 */
export const TCG_CACHE_MIB = 32;

/** User ids that machines run under when the daemon is root: one each, by the end of the run directory's name. */
export const VM_UID_FIRST = 1_879_048_192;
export const VM_UID_COUNT = 65_536;

/** What the VMM may use beyond the guest's memory before its cgroup's limit ends it, MiB. */
export const VMM_HEADROOM_MIB = 512;
/** Threads of one VMM besides its vCPUs: main, RCU, and QEMU's pool of at most 64 for disks. */
export const VMM_THREADS_MAX = 96;
