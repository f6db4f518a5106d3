import { EngineError, type Runtime, type VolumeRecord } from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type { VolumeSchema, VolumeService } from '../gen/arcbox/v1/volume_pb.ts';

export function volumeService(runtime: Runtime): ServiceImpl<typeof VolumeService> {
  const toMessage = async (record: VolumeRecord): Promise<MessageInitShape<typeof VolumeSchema>> => {
    const { usedBytes, containers } = await (await runtime.volumes()).usage(record);
    return {
      name: record.name,
      anonymous: record.anonymous,
      labels: { ...record.labels },
      sizeBytes: BigInt(record.sizeBytes),
      createdMs: BigInt(record.createdMs),
      usedBytes: BigInt(usedBytes),
      containers,
    };
  };
  return {
    async create({ name, labels, sizeBytes }) {
      const record = await (await runtime.volumes()).create({
        labels,
        ...(name === '' ? {} : { name }),
        ...(sizeBytes === 0n ? {} : { sizeBytes: Number(sizeBytes) }),
      });
      return { volume: await toMessage(record) };
    },
    async list({ dangling }) {
      const volumes = await Promise.all((await runtime.volumes()).list().map(toMessage));
      return { volumes: volumes.filter(({ containers }) => !dangling || containers === 0) };
    },
    async inspect({ name }) {
      return { volume: await toMessage((await runtime.volumes()).find(name)) };
    },
    async remove({ name, force }) {
      try {
        await (await runtime.volumes()).remove(name);
      } catch (error) {
        if (!force || !(error instanceof EngineError) || error.code !== 'ERR_ARCBOX_VOLUME_NOT_FOUND')
          throw error;
      }
      return {};
    },
    async prune({ all }) {
      const { removed, freedBytes } = await (await runtime.volumes()).prune({ all });
      return { names: removed, freedBytes: BigInt(freedBytes) };
    },
  };
}
