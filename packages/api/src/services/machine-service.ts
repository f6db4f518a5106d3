import { stat } from 'node:fs/promises';
import { EngineError, type Machine, type MachineOptions, type Runtime } from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type { CreateMachineRequest, MachineSchema, MachineService } from '../gen/arcbox/v1/machine_pb.ts';

const MIB = 1024n ** 2n;
const BLOCK_BYTES = 512;

export function machineService(runtime: Runtime): ServiceImpl<typeof MachineService> {
  return {
    async create(request) {
      const machine = await runtime.createMachine(request.name, optionsOf(request));
      return { machine: await toMessage(runtime, machine) };
    },
    async remove({ name, force }) {
      await runtime.removeMachine(name, { force });
      return {};
    },
    async list() {
      const machines = await runtime.machines();
      return { machines: await Promise.all(machines.map((machine) => toMessage(runtime, machine))) };
    },
    async inspect({ name }) {
      return { machine: await toMessage(runtime, runtime.machine(name)) };
    },
    async start({ name }) {
      const machine = runtime.machine(name);
      // A daemon that ends brings nothing up any more.
      await runtime.containers();
      await machine.ensure();
      return { machine: await toMessage(runtime, machine) };
    },
    async idle({ name }) {
      await runtime.idleMachine(name);
      return { machine: await toMessage(runtime, runtime.machine(name)) };
    },
    async stop({ name }) {
      await runtime.stopMachine(name);
      return {};
    },
  };
}

function optionsOf({ cpus, memoryBytes, diskBytes }: CreateMachineRequest): MachineOptions {
  if (memoryBytes % MIB !== 0n) {
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `a machine's memory is whole mebibytes, and ${memoryBytes} bytes are not`,
    );
  }
  return {
    ...(cpus === 0 ? {} : { cpus }),
    ...(memoryBytes === 0n ? {} : { memoryMib: Number(memoryBytes / MIB) }),
    ...(diskBytes === 0n ? {} : { diskBytes: Number(diskBytes) }),
  };
}

async function toMessage(
  runtime: Runtime,
  machine: Machine,
): Promise<MessageInitShape<typeof MachineSchema>> {
  const { size } = machine;
  const containers = (await runtime.containers()).of(machine.name);
  const base = {
    name: machine.name,
    state: machine.retired ? 'removing' : machine.state,
    cpus: size.cpus,
    memoryBytes: BigInt(size.memoryMib) * MIB,
    ...(await diskOf(runtime, machine)),
    createdMs: BigInt(machine.record.createdMs),
    containers: containers.length,
    containersRunning: containers.filter(({ live }) => live).length,
    ...(machine.saved === undefined
      ? {}
      : { savedBytes: BigInt(machine.saved.memoryBytes), savedMs: BigInt(machine.saved.savedMs) }),
  };
  const up = machine.state === 'running' ? await machine.current() : undefined;
  if (up === undefined) return base;
  const [inspect, client] = await Promise.all([up.vm.inspect(), up.agent.client()]);
  return {
    ...base,
    cpus: up.vm.config.vcpus,
    memoryBytes: BigInt(up.vm.config.memoryMib) * MIB,
    pid: inspect.pid,
    accelerator: inspect.accelerator,
    vmmVersion: inspect.vmmVersion,
    kernelRelease: client.hello.kernelRelease,
    agentVersion: client.hello.agentVersion,
    pssBytes: BigInt(inspect.pssBytes),
    guestRamPssBytes: BigInt(inspect.guestRamPssBytes),
  };
}

/** A disk that is there has the size that it was made with. */
async function diskOf(
  { layout }: Runtime,
  { name, size }: Machine,
): Promise<{ diskBytes: bigint; diskUsedBytes: bigint }> {
  try {
    const { size: bytes, blocks } = await stat(layout.machineDisk(name));
    return { diskBytes: BigInt(bytes), diskUsedBytes: BigInt(blocks * BLOCK_BYTES) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { diskBytes: BigInt(size.diskBytes), diskUsedBytes: 0n };
  }
}
