/*
 * The connection to the host: a virtio-serial port, or a Unix socket.
 *
 * It is in one of three states. Down: a socket without a peer. Waiting: bytes may come, only a Hello
 * counts. Open: an epoch. A host that is gone and back between two looks at a port goes unnoticed,
 * so whatever arrives is first searched for a Hello at its very end.
 */
#pragma once

#include <sys/uio.h>

#include "frame.h"

/* Fatal when the port cannot be opened. */
void link_open_port(const char *path);
void link_listen(const char *path);
void link_close(void);

/* Queues a frame whose data comes in up to two parts. */
void link_send(uint32_t stream_id, uint8_t type, uint8_t flags, const void *data, size_t size);
/* Sends a whole frame in pieces, which are changed, from where they are as far as that is possible. */
void link_send_data(struct iovec *pieces, int count);
/* Whether streams may add chunks. When not, streams_pump() is called once they may again. */
bool link_has_room(void);
/* Sends what is queued, soon. */
void link_wake(void);

/* Ends the epoch: the peer broke the protocol. Answers on `stream_id` when it is not 0. */
void link_fail(uint32_t stream_id, const char *why);
