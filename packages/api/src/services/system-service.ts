import { checkFilters, type Runtime, type UsageRow } from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type { Doctor } from '../doctor.ts';
import type { SystemService, UsageRowSchema } from '../gen/arcbox/v1/system_pb.ts';
import { VERSION } from '../version.ts';

export interface SystemEnvironment {
  readonly runtime: Runtime;
  readonly doctor: Doctor;
  /** Begins the end; the answer has still to be sent. */
  shutdown(): void;
}

export function systemService({
  runtime,
  doctor,
  shutdown,
}: SystemEnvironment): ServiceImpl<typeof SystemService> {
  return {
    ping: () => ({}),
    version: () => ({
      version: VERSION,
      nodeVersion: process.version,
      bootHash: runtime.assets.hash,
      architecture: runtime.assets.architecture,
      daemonPid: process.pid,
    }),
    async info() {
      const records = (await runtime.containers()).list();
      const images = await runtime.images.list();
      const { machine, orphanGraceS } = runtime.config;
      return {
        home: runtime.layout.home,
        driver: runtime.driver.name,
        containers: records.length,
        containersRunning: records.filter(({ state }) => state === 'running').length,
        containersPaused: records.filter(({ state }) => state === 'paused').length,
        machines: (await runtime.machines()).length,
        version: VERSION,
        architecture: runtime.assets.architecture,
        images: images.length,
        machineCpus: machine.cpus,
        machineMemoryBytes: BigInt(machine.memoryMib) * 1024n ** 2n,
        ...(Number.isFinite(orphanGraceS) ? { orphanGraceS } : {}),
        uptimeS: process.uptime(),
      };
    },
    async doctor() {
      return { checks: await doctor() };
    },
    async *events({ afterSeq, sinceMs, untilMs, filters }, { signal }) {
      const wanted = Object.fromEntries(Object.entries(filters).map(([key, { values }]) => [key, values]));
      checkFilters(wanted);
      const batches = runtime.events.read({
        ...(afterSeq === undefined ? {} : { afterSeq: Number(afterSeq) }),
        ...(sinceMs === undefined ? {} : { sinceMs: Number(sinceMs) }),
        ...(untilMs === undefined ? {} : { untilMs: Number(untilMs) }),
        filters: wanted,
        signal,
      });
      for await (const { events, lost } of batches) {
        if (events.length === 0) yield { lost: BigInt(lost) };
        for (const [index, event] of events.entries()) {
          yield {
            seq: BigInt(event.seq),
            timeMs: BigInt(event.timeMs),
            type: event.type,
            action: event.action,
            id: event.id,
            attributes: { ...event.attributes },
            lost: index === 0 ? BigInt(lost) : 0n,
          };
        }
      }
    },
    async diskUsage() {
      const { images, containers, volumes, machines } = await runtime.diskUsage();
      return {
        images: usageRow(images),
        containers: usageRow(containers),
        volumes: usageRow(volumes),
        machines: usageRow(machines),
      };
    },
    shutdown() {
      shutdown();
      return {};
    },
  };
}

function usageRow({ bytes, reclaimableBytes, ...counts }: UsageRow): MessageInitShape<typeof UsageRowSchema> {
  return { ...counts, bytes: BigInt(bytes), reclaimableBytes: BigInt(reclaimableBytes) };
}
