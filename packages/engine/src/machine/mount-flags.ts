/** Flags of mount(2) in the guest, as the agent's `mount` takes them (linux/mount.h). */
export const MS_RDONLY = 1n;
export const MS_NOSUID = 2n;
export const MS_NODEV = 4n;
export const MS_NOEXEC = 8n;
export const MS_REMOUNT = 32n;
export const MS_NOATIME = 1024n;
export const MS_BIND = 4096n;
