/** The only module that knows where things lie inside a machine. Names are short: mount options end at a page. */

/** Where the machine's disk is mounted. */
export const DISK_MOUNT = '/m';
/** Serial of that disk. */
export const DISK_ID = 'disk';
/** Upper directories of containers: they stay until the container is removed. */
export const UPPERS = `${DISK_MOUNT}/c`;
/** What a running container needs: on the guest's tmpfs, gone when it has ended. */
export const BUNDLES = '/run/c';
export const CRUN = '/bin/crun';
/** Reaps and passes signals on, as process 1 of a container that asks for it. */
export const TINI = '/bin/tini';
/** The compiled system-call filter of every container. */
export const SECCOMP_FILTER = '/etc/seccomp.bpf';
export const CRUN_STATE = '/run/crun';
export const CGROUP_ROOT = '/sys/fs/cgroup';
/** The cgroup above all containers, without the root. */
export const CGROUP_PARENT = '/arcbox';

/** Where a container's network namespace is pinned. */
export const NAMESPACES = '/run/n';

export function namespacePath(containerId: string): string {
  return `${NAMESPACES}/${containerId}`;
}

/** Mount point of a layer. */
export function layerMount(number: number): string {
  return `/l/${number}`;
}
/** Disk ID (and so the serial) of a layer. */
export function layerDiskId(number: number): string {
  return `l-${number}`;
}
export function layerNumberOfDisk(diskId: string): number | undefined {
  const match = /^l-(\d+)$/.exec(diskId);
  return match === null ? undefined : Number(match[1]);
}

/** Mount point of a volume's disk, and where its data is below it. */
export function volumeMount(number: number): string {
  return `/v/${number}`;
}
export function volumeData(number: number): string {
  return `${volumeMount(number)}/d`;
}
/** What an empty volume is filled in, until it is whole. */
export function volumeStaging(number: number): string {
  return `${volumeMount(number)}/n`;
}
export function volumeDiskId(number: number): string {
  return `v-${number}`;
}
export function volumeNumberOfDisk(diskId: string): number | undefined {
  const match = /^v-(\d+)$/.exec(diskId);
  return match === null ? undefined : Number(match[1]);
}

export interface ContainerPaths {
  readonly upper: string;
  readonly work: string;
  readonly disk: string;
  /** All its layers as one, while what it changed is listed. */
  readonly lower: string;
  readonly bundle: string;
  readonly rootfs: string;
  readonly pidFile: string;
  readonly runtimeLog: string;
  readonly consoleSocket: string;
  readonly runtimeState: string;
  /** What it shares of /dev/shm with other containers. */
  readonly shm: string;
  /** As the OCI specification wants it, below the cgroup root. */
  readonly cgroup: string;
}

export function containerPaths(id: string): ContainerPaths {
  const bundle = `${BUNDLES}/${id}`;
  const disk = `${UPPERS}/${id}`;
  return {
    disk,
    lower: `${disk}/lower`,
    upper: `${disk}/u`,
    work: `${disk}/w`,
    bundle,
    rootfs: `${bundle}/rootfs`,
    pidFile: `${bundle}/pid`,
    runtimeLog: `${bundle}/crun.log`,
    consoleSocket: `${bundle}/tty`,
    runtimeState: `${CRUN_STATE}/${id}`,
    shm: `/run/shm/${id}`,
    cgroup: `${CGROUP_PARENT}/${id}`,
  };
}

/** The agent's name for a container's process, at most 64 bytes. */
export function processObjectId(containerId: string, run: number): string {
  return `c-${containerId.slice(0, 40)}-${run}`;
}
