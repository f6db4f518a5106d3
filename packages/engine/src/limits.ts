/** Named limits of the engine. Sizes are bytes, times are milliseconds. */

/** Containers in the store, in any state. */
export const CONTAINERS_MAX = 4096;
/** Arguments and environment of one container, together (Linux has 2 MiB for one exec by default). */
export const ARGUMENTS_BYTES_MAX = 1024 * 1024;
/** Labels of one container, as JSON. */
export const LABELS_BYTES_MAX = 1024 * 1024;
/** Entries of one option that may be given many times. */
export const OPTION_ENTRIES_MAX = 1024;
/** Longest container name. */
export const CONTAINER_NAME_LENGTH_MAX = 128;
/** Longest host name (HOST_NAME_MAX). */
export const HOSTNAME_LENGTH_MAX = 64;
/** Smallest memory limit of a container; crun itself needs some to start. */
export const MEMORY_LIMIT_BYTES_MIN = 6 * 1024 * 1024;

/** The last lines of a log that can be asked for. */
export const LOG_TAIL_LINES_MAX = 1_000_000;
/** Rotation: the smallest size of a log's file, and how many files one log may have. */
export const LOG_SEGMENT_BYTES_MIN = 64 * 1024;
export const LOG_FILES_MAX = 1000;

/** Volumes in the store, and mounts of one container. */
export const VOLUMES_MAX = 4096;
export const MOUNTS_MAX = 128;
export const VOLUME_NAME_LENGTH_MAX = 128;
/** Size of a volume's disk, which is sparse: usual, least and most. */
export const VOLUME_BYTES = 64 * 1024 ** 3;
export const VOLUME_BYTES_MIN = 8 * 1024 ** 2;
export const VOLUME_BYTES_MAX = 8 * 1024 ** 4;
/** Volumes that a machine keeps attached although no container uses them. */
export const VOLUMES_UNUSED_MAX = 16;
/** What is under way between packing and unpacking when a volume is filled. */
export const COPY_WINDOW_BYTES = 1024 * 1024;

/** Back-off of restarts: docker's figures. */
export const RESTART_MS_MIN = 100;
export const RESTART_MS_MAX = 60_000;
/** One that ran for so long begins with the shortest again. */
export const RESTART_RESET_MS = 10_000;

/** Health checks: docker's defaults, the least that a duration may be, and what is kept of them. */
export const HEALTH_INTERVAL_MS = 30_000;
export const HEALTH_TIMEOUT_MS = 30_000;
export const HEALTH_RETRIES = 3;
export const HEALTH_MS_MIN = 1;
export const HEALTH_LOG_ENTRIES = 5;
export const HEALTH_OUTPUT_BYTES = 4096;

/** Events that are kept; older ones go, a few at a time. */
export const EVENTS_MAX = 10_000;
export const EVENTS_TRIM_EVERY = 256;
/** Events that a reader gets at once. */
export const EVENT_BATCH = 256;

/** A log segment is closed when it has grown past this. */
export const LOG_SEGMENT_BYTES = 64 * 1024 * 1024;
/** Closed and open segments kept of one container's log. */
export const LOG_SEGMENTS = 2;
/** The largest piece of a log that is written, or read back, at once. */
export const LOG_BLOCK_BYTES = 512 * 1024;
/** Large blocks that are kept for use again, by all logs together, and for how long. */
export const LOG_POOL_BLOCKS = 8;
export const LOG_POOL_IDLE_MS = 5000;
/** A container that filled this much of a block is at full speed: what follows is gathered into large blocks, */
export const LOG_BULK_BYTES = 32 * 1024;
/** up to this much, */
export const LOG_GATHER_BYTES = 256 * 1024;
/** for at most so many turns of the event loop, as long as each brings something. */
export const LOG_GATHER_TURNS = 6;
/** The smallest block that is allocated for records to be written. */
export const LOG_BLOCK_BYTES_MIN = 4 * 1024;
/** Written records that are kept in memory for readers that have not taken them yet, of one container. */
export const LOG_TAIL_BYTES = 4 * 1024 * 1024;
/** How far an attached client may be behind before the container is made to wait. */
export const ATTACH_LAG_BYTES = 2 * 1024 * 1024;
/** After a failed write (a full disk), how long until it is tried again. */
export const LOG_RETRY_MS = 1000;

/** How far the agent may run ahead of what the log holds, on each channel. */
export const OUTPUT_WINDOW_BYTES = 1024 * 1024;

/** How long a container's processes have to come to a stand when it is paused. */
export const FREEZE_TIMEOUT_MS = 10_000;
/** Processes of one container that are listed. */
export const TOP_PROCESSES_MAX = 4096;
/** What is kept of the messages of one archive operation. */
export const ARCHIVE_MESSAGE_BYTES_MAX = 4096;
/** Paths of the changes of one container, together. */
export const CHANGES_BYTES_MAX = 64 * 1024 * 1024;
/** How far the agent may run ahead of the client of an exec, on each channel. */
export const EXEC_WINDOW_BYTES = 256 * 1024;
/** After an exec's process ended, how long its output may be silent while something else holds it open. */
export const EXEC_DRAIN_IDLE_MS = 500;
/** Execs of one container that are remembered; of those that have ended the oldest are forgotten first. */
export const EXECS_PER_CONTAINER_MAX = 512;

/** What a machine takes of the host's memory to start: the VMM, and what a guest touches by then. */
export const MACHINE_START_BYTES = 192 * 1024 * 1024;
/** How long a machine has to boot until its agent answers. */
export const BOOT_TIMEOUT_MS = 60_000;
/** How long one batch may take, unless the caller knows better. */
export const BATCH_TIMEOUT_MS = 60_000;
/** Back-off between attempts to reach the agent again. */
export const RECONNECT_MS_MIN = 1;
export const RECONNECT_MS_MAX = 500;
/** An epoch that ended sooner does not reset the back-off: a broken or hostile agent may keep nobody busy. */
export const EPOCH_SHORT_MS = 1000;
/** How long a machine has to power off before it is killed. */
export const MACHINE_STOP_TIMEOUT_MS = 5000;
/** An idle machine gives pages back before it is saved; the guest reports them two seconds after they were freed. */
export const IDLE_GIVE_BACK_MS = 2500;
/** What an idle machine may keep of its page cache; of more it keeps nothing. */
export const IDLE_CACHE_BYTES = 32 * 1024 * 1024;
/** What must be left on tmpfs beside the memory of an idle machine. */
export const IDLE_SPARE_BYTES = 64 * 1024 * 1024;
/** When an attempt to idle down failed: how long until the next. */
export const IDLE_RETRY_MS = 60_000;
/** Machines in the store. */
export const MACHINES_MAX = 64;
export const MACHINE_NAME_LENGTH_MAX = 64;
export const MACHINE_CPUS_MAX = 64;
export const MACHINE_MEMORY_MIB_MIN = 128;
export const MACHINE_MEMORY_MIB_MAX = 1024 * 1024;
/** Size of a machine's disk, which is sparse: usual, least and most. */
export const MACHINE_DISK_BYTES = 64 * 1024 ** 3;
export const MACHINE_DISK_BYTES_MIN = 64 * 1024 ** 2;
export const MACHINE_DISK_BYTES_MAX = 8 * 1024 ** 4;
/** How long a container has between the stop signal and SIGKILL, unless the caller says otherwise. */
export const STOP_TIMEOUT_MS = 10_000;
/** Longest time a timer of Node.js can wait; a longer one would end at once. */
export const TIMER_MS_MAX = 2 ** 31 - 1;
/** Users of images that were looked up and are remembered. */
export const USERS_CACHED_MAX = 1024;
/** Of what the guest says about a failure, so much is looked at, kept and shown: its beginning and its end. */
export const REASON_LENGTH_MAX = 2048;
/** A container to be removed on exit, whose client vanished with the last daemon, waits this long for it. */
export const AUTO_REMOVE_GRACE_MS = 10_000;
/** Longest path of a Unix socket (sun_path, without its terminating zero). */
export const SOCKET_PATH_BYTES_MAX = 107;
/** The largest that QEMU's network card takes: frames of 64 KiB need no more system calls than those of 1500 bytes. */
export const CARD_MTU = 65_520;
/** Longest name of a network. */
export const NETWORK_NAME_LENGTH_MAX = 128;
/** VLAN identifiers that IEEE 802.1Q has, and so the networks there can be. */
export const VLAN_MAX = 4094;
/** Of the kernel's list of a container's connections so much is looked at: some seven thousand. */
export const CONNECTIONS_READ_BYTES_MAX: number = 1024 * 1024;
/** Connections of containers to networks, all together. */
export const ENDPOINTS_MAX = 16_384;
