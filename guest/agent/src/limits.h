/* Every limit of the agent, in one place. Sizes are bytes unless the name says otherwise. */
#pragma once

/* --- Protocol ---------------------------------------------------------------------------- */
#define PROTOCOL_VERSION 1u
#define FRAME_DATA_MAX (4u << 20) /* data of one ttrpc frame */
#define HELLO_FRAME_MAX 512u      /* header and data of a Hello request */
#define NONCE_SIZE 16u
#define SECRET_SIZE 16u
#define PENDING_CALLS_MAX 1024u
#define BATCH_OPS_MAX 256u
#define BATCH_PENDING_MAX (64u << 20) /* requests of all batches that are under way */
#define BATCH_RESPONSE_MAX (FRAME_DATA_MAX - 64u * 1024u) /* leaves room for the envelope */
#define ARENA_MAX (8u << 20) /* decoded strings of one message */
#define STRINGS_MAX 32768u   /* elements of one repeated string field */

/* --- The connection ------------------------------------------------------------------------ */
#define RX_CHUNK (64u << 10)   /* free room offered to one read */
#define RX_BUDGET (512u << 10) /* read before others get their turn */
#define RX_KEEP (256u << 10)   /* a bigger receive buffer is given back when empty */
#define TX_COMPACT_MIN (128u << 10) /* sent bytes before unsent ones that are worth moving */
#define TX_PAUSE_HIGH (8u << 20)  /* nothing is received while more than this is unsent */
#define PORT_WRITE_MAX (32u << 10) /* virtio_console takes this much per call */
#define PORT_DIRECT_MIN (8u << 10) /* smaller chunks are copied behind their header */

/* --- Objects and channels ------------------------------------------------------------------- */
#define OBJECTS_MAX 4096u
#define OBJECTS_OF_HOST_MIN 1024u /* of these: connections that arrive leave so many to the host */
#define OBJECT_ID_MAX 64u
#define OBJECT_ID_SIZE (OBJECT_ID_MAX + 1u + 20u + 1u) /* an accepted connection's, with its end */
#define OUTPUT_RETAIN_MIN (4u << 10)
#define OUTPUT_RETAIN_MAX (1u << 20)  /* one channel; a power of two */
#define OUTPUT_RETAIN_SHARED (64u << 10) /* one channel, once all of them hold RETAIN_TOTAL_MAX */
#define RETAIN_TOTAL_MAX (64u << 20)
#define INPUT_WINDOW (256u << 10) /* a power of two */
#define CHUNK_DATA_MAX (64u << 10)
#define PIPE_SIZE (1u << 20) /* asked of the kernel: the fewer turns of writer and agent, the better */
#define FILL_BUDGET (1u << 20) /* moved before others get their turn */
#define FILL_COST_MIN (4u << 10) /* what one read counts at least */

/* --- Operations ----------------------------------------------------------------------------- */
#define PATH_SIZE_MAX 4096u /* with its end, as PATH_MAX */
#define MOUNT_DATA_MAX (64u << 10)
#define ARGV_ENV_MAX (1u << 20)
#define READ_MAX (1u << 20)
#define WRITE_MAX (1u << 20)
#define LIST_MAX 65536u
#define XATTR_VALUE_MAX (64u << 10)
#define REMOVE_DEPTH_MAX 128u /* directories open at a time */
#define GROUPS_MAX 1024u /* as in agent.options */
#define SECCOMP_FILTER_MAX (4096u * 8u) /* BPF_MAXINSNS struct sock_filter */
#define NETLINK_REPLY_MAX (1u << 20)
#define NETLINK_TIMEOUT_MS 5000
#define ENTROPY_MAX 512u
#define DEVICE_TIMEOUT_MS_DEFAULT 5000u
#define CONNECT_TIMEOUT_MS_DEFAULT 10000u
#define LISTEN_BACKLOG_MAX 4096u
#define JOBS_MAX 64u          /* forked workers at the same time; more wait */
#define ORPHAN_STATUS_MAX 4096u /* exits of processes that nobody named yet */
#define FUSE_MESSAGE_MAX ((1u << 20) + 8192u)
