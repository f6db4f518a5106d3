/** Images as the API shows them. */
import type { Image, ProgressEvent, Removal } from '@arcbox/image';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  ImageRemovalSchema,
  ImageSchema,
  TransferOutcomeSchema,
  TransferProgressSchema,
} from '../gen/arcbox/v1/image_pb.ts';

export function imageMessage(image: Image): MessageInitShape<typeof ImageSchema> {
  return {
    id: image.id,
    names: [...image.names],
    digests: [...image.digests],
    created: image.config.created,
    sizeBytes: BigInt(image.sizeBytes),
    architecture: image.config.architecture,
    os: image.config.os,
    labels: { ...image.config.labels },
    embedded: image.embedded,
  };
}

export function removalMessage(removal: Removal): MessageInitShape<typeof ImageRemovalSchema> {
  return 'deleted' in removal ? { deleted: removal.deleted } : { untagged: removal.untagged };
}

export function progressMessage({
  id,
  status,
  current,
  total,
}: ProgressEvent): MessageInitShape<typeof TransferProgressSchema> {
  return {
    id,
    status,
    ...(current === undefined ? {} : { current: BigInt(current) }),
    ...(total === undefined ? {} : { total: BigInt(total) }),
  };
}

type Progress = MessageInitShape<typeof TransferProgressSchema>;

/**
 * Runs a transfer and tells of it while it goes on; the last message says what came of it. Of what comes faster than it is
 * taken, each layer's newest is kept.
 */
export async function* transferMessages(
  run: (
    onProgress: (event: ProgressEvent) => void,
  ) => Promise<MessageInitShape<typeof TransferOutcomeSchema>>,
): AsyncGenerator<Progress, void, undefined> {
  const waiting = new Map<string, ProgressEvent>();
  let wake = Promise.withResolvers<void>();
  let over = false;
  const transfer = run((event) => {
    // A change of what is done is news; how far it has come replaces what was not told yet.
    waiting.set(`${event.id} ${event.status}`, event);
    wake.resolve();
  }).finally(() => {
    over = true;
    wake.resolve();
  });
  // It is awaited below, after everything that it told.
  transfer.catch(() => {});
  for (;;) {
    await wake.promise;
    wake = Promise.withResolvers();
    const events = [...waiting.values()];
    waiting.clear();
    for (const event of events) yield progressMessage(event);
    if (over && waiting.size === 0) break;
  }
  yield { outcome: await transfer };
}
