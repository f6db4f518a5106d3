/** The job of `import` and `commit`: a tar stream becomes a layer. */
import { join } from 'node:path';
import { faultPoint } from '@arcbox/sys/fault-point';
import { DETECT_BYTES } from '../layer/compression.ts';
import { type IngestedLayer, LayerIngest } from '../layer/ingest.ts';
import { PROGRESS_INTERVAL_MS } from '../limits.ts';
import type { JobContext } from '../worker/context.ts';
import { LAYER_FILES, type LayerJob } from '../worker/protocol.ts';
import { startingWith, unpacked } from './packing.ts';

export async function layerJob(job: LayerJob, context: JobContext): Promise<IngestedLayer> {
  faultPoint('image.layer.ingest');
  const paths = {
    blob: join(job.workspace, LAYER_FILES.blob),
    squashfs: join(job.workspace, LAYER_FILES.squashfs),
  };
  const ingest = new LayerIngest(paths, job.limits);
  try {
    await ingest.open();
    // A layer is stored as it comes, but not in what no registry would take.
    const tar = unpacked(context.input, ['gzip', 'zstd']);
    let current = 0;
    let toldMs = 0;
    for await (const chunk of startingWith(tar, DETECT_BYTES)) {
      await ingest.write(chunk);
      current += chunk.length;
      if (Date.now() - toldMs >= PROGRESS_INTERVAL_MS) {
        toldMs = Date.now();
        context.progress({ id: '', status: 'Importing', current });
      }
    }
    faultPoint('image.layer.finish');
    return await ingest.finish();
  } catch (error) {
    await ingest.abort();
    throw error;
  }
}
