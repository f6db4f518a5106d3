/**
 * Answering before a body has come to its end. Closing a socket with unread bytes in it takes the answer away from the
 * client, which is still sending and sees its connection break; so we stay until it has read the answer and left.
 */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { REFUSED_BODY_TIMEOUT_MS } from './limits.ts';

/** Takes and drops the rest of a body, until its client is done or has had time enough. Never rejects. */
export async function outlastBody(request: IncomingMessage): Promise<void> {
  if (request.complete || request.destroyed) return;
  request.resume();
  const timeout = AbortSignal.timeout(REFUSED_BODY_TIMEOUT_MS);
  await once(request, 'close', { signal: timeout }).catch(() => {});
}
