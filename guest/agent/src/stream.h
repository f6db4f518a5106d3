/*
 * Attach: moves the bytes of one object's channels to and from the host.
 *
 * The first frame of the agent is the credit for channel 0: where input goes on and how far it may go
 * (a limit of 0: the object takes none). What was received of an earlier stream and not yet written is forgotten
 * then, because the host sends it again from there.
 *
 * The agent ends the stream: OK when the object has ended, every output channel reached its end and
 * all of it is acknowledged, or when the host closed its side (it detaches); ABORTED when another
 * stream took the object, or it was released; OUT_OF_RANGE for an offset that cannot be.
 */
#pragma once

#include "object.h"

/* The channel has something to send, or may have. */
void attach_has_output(struct object *object);
/* Input was written to the descriptor: the host may be told. */
void attach_input_moved(struct object *object);
/* Ends the stream when everything has been said. */
void attach_check_end(struct object *object);
void attach_finish(struct object *object, enum status_code code, const char *why);

/* Sends chunks, one of each stream in turn, while the link has room. True when more is to be sent. */
bool streams_pump(void);
bool streams_pending(void);
