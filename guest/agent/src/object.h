/*
 * Objects: what the host named. A table of them, who waits for them, and how they end.
 */
#pragma once

#include "call.h"
#include "channel.h"
#include "limits.h"

struct object;
struct attach;

struct object_type {
  ObjectInfo_Kind kind;
  /* Stops whatever runs and frees what the type added, `object` included. Channels are closed already. */
  void (*release)(struct object *object);
  /* A channel reached its end, or broke; may be NULL. */
  void (*channel_ended)(struct object *object, struct channel *channel);
};

/* How an object ended, as WaitResponse has it. */
struct outcome {
  bool signaled;
  int32_t code;
  char error[256];
};

struct object {
  struct list all, bucket;
  const struct object_type *type;
  char id[OBJECT_ID_SIZE];
  int32_t pid;
  bool ended;
  struct outcome outcome;
  struct list waiters; /* struct waiter */
  struct attach *attach;
  struct channel *channels[3];
};

/* 0, EINVAL, EEXIST or ENFILE: whether an object of this name can be made. */
int object_check_id(const char *id);
/* Enters it in the table; the name was checked. */
void object_init(struct object *object, const struct object_type *type, const char *id);
struct object *object_find(const char *id);
/* Whether there is room for an object that the host did not ask for. */
bool objects_may_be_accepted(void);
/* Answers those who wait, now and later. */
void object_end(struct object *object, const struct outcome *outcome);
void object_channel_ended(struct object *object, struct channel *channel);
void object_release(struct object *object);
void objects_release_all(void);
/* Encoded ObjectInfo fields of an ObjectList. */
void objects_encode(struct buf *buf);
/* When an object was released while nothing could be accepted; see net.c. */
extern void (*objects_have_room)(void);
