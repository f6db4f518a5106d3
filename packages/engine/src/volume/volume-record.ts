/** What is stored of a volume. */
export interface VolumeRecord {
  /** Its short name in every guest: mounted at /v/<number>. */
  readonly number: number;
  readonly name: string;
  /** `made`: its disk is there. `removing`: nothing may be made of it any more. */
  state: 'new' | 'made' | 'removing';
  /** Made for one container that did not name it; goes with it when it is asked for (`rm -v`, `--rm`). */
  readonly anonymous: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly sizeBytes: number;
  /** Milliseconds since 1970. */
  readonly createdMs: number;
}
