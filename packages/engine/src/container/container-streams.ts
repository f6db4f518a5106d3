/** Reading what a container writes, as it is written or afterwards, and writing to it. */
import { ATTACH_LAG_BYTES } from '../limits.ts';
import type { LogReader } from '../log/log-reader.ts';
import { findTail, type LogPlace, type LogRange, LogView } from '../log/log-view.ts';
import type { Container } from './container.ts';
import { ContainerAttachment } from './container-attachment.ts';
import type { ContainerRemoval } from './container-removal.ts';

export interface AttachOptions {
  /** A position in the log, or one of its ends; default: where the log is now. */
  readonly cursor?: number | 'start' | 'end';
  /** Which run; default: the one that goes on, or the next one. */
  readonly run?: number;
}

export interface LogOptions extends LogRange {
  /** A position in the log, or one of its ends; default: the oldest that is still there. */
  readonly cursor?: number | 'start' | 'end';
  /** Only so many last lines of it. */
  readonly tail?: number;
  readonly follow?: boolean;
}

/** Attaches to the run that goes on, or to the next one when none does. */
export async function attach(
  container: Container,
  options: AttachOptions,
  removal: ContainerRemoval,
): Promise<ContainerAttachment> {
  const { record } = container;
  const run = options.run ?? (container.live ? record.run : record.run + 1);
  container.attached += 1;
  const leave = async (): Promise<void> => {
    container.attached -= 1;
    await container.releaseLog();
    if (record.config.autoRemove && container.attached === 0 && run <= record.run)
      await removal.autoRemove(container);
  };
  try {
    const log = await container.useLog();
    try {
      const cursor = options.cursor ?? 'end';
      const reader = log.reader({ cursor, followRun: run, maxLagBytes: ATTACH_LAG_BYTES });
      return new ContainerAttachment(container, run, reader, leave);
    } catch (error) {
      await container.releaseLog();
      throw error;
    }
  } catch (error) {
    container.attached -= 1;
    throw error;
  }
}

/** Reads the log, or a part of it, from `cursor` on; with `follow` until the run that goes on has ended. */
export async function readLogs(
  container: Container,
  options: LogOptions,
): Promise<{ reader: LogView; position: number; release(): Promise<void> }> {
  const { tail, follow } = options;
  const log = await container.useLog();
  // It never reads: nothing is rotated away below it until the reader stands where it is to begin.
  let hold: LogReader | undefined;
  try {
    const until = log.end;
    hold = log.reader({ cursor: tail === 0 ? until : (options.cursor ?? 'start') });
    let from: LogPlace | undefined;
    if (tail !== undefined && tail > 0) {
      await using scan = log.reader({ cursor: hold.position, until });
      from = await findTail(scan, tail, options);
    }
    const reach = follow === true ? { followRun: Math.max(1, container.record.run) } : { until };
    const reader = log.reader({ cursor: from?.position ?? hold.position, ...reach });
    const view = new LogView(reader, options, from);
    if (follow === true) view.endInTime();
    return {
      reader: view,
      position: reader.position,
      release: async () => {
        await view.close();
        await container.releaseLog();
      },
    };
  } catch (error) {
    await container.releaseLog();
    throw error;
  } finally {
    await hold?.close();
  }
}
