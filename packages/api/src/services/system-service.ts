import type { Runtime } from '@arcbox/engine';
import type { ServiceImpl } from '@connectrpc/connect';
import type { Doctor } from '../doctor.ts';
import type { SystemService } from '../gen/arcbox/v1/system_pb.ts';
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
    shutdown() {
      shutdown();
      return {};
    },
  };
}
