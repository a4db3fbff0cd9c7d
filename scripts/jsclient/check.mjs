// @aws-sdk/client-s3 and its companions against a running estate. Started by scripts/clients.d/js, which sets the environment
// that `redoubt env` prints: endpoint, region and authority come from there.
import assert from 'node:assert/strict'
import { createReadStream, readFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import {
  AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CopyObjectCommand, CreateBucketCommand, CreateMultipartUploadCommand,
  DeleteBucketCommand, DeleteObjectCommand, DeleteObjectsCommand, DeleteObjectTaggingCommand, GetObjectAttributesCommand, GetObjectCommand,
  GetObjectTaggingCommand, HeadBucketCommand, HeadObjectCommand, ListBucketsCommand, ListMultipartUploadsCommand, ListObjectVersionsCommand,
  ListPartsCommand, PutObjectCommand, PutObjectTaggingCommand, S3Client, UploadPartCommand, UploadPartCopyCommand, paginateListObjectsV2,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'

const { FILES, W, CLIENT } = process.env
const Bucket = 'c-js'
const ODD = 'naïve ü +plus & space (1).txt'
const SMALL = readFileSync(`${FILES}/small.txt`)
const MILLION = readFileSync(`${FILES}/million`)
const TWENTY = readFileSync(`${FILES}/twenty`)

function client(who) {
  const env = Object.fromEntries(readFileSync(`${W}/${who}.env`, 'utf8').trim().split('\n').map((line) => line.match(/^export (\w+)=(.*)$/).slice(1)))
  return new S3Client({ credentials: { accessKeyId: env.AWS_ACCESS_KEY_ID, secretAccessKey: env.AWS_SECRET_ACCESS_KEY } })
}

const s = new S3Client({}) // nothing but the environment
const u = client('u')
const admin = client('admin')

async function get(c, Key, more = {}) {
  const out = await c.send(new GetObjectCommand({ Bucket, Key, ...more }))
  return Buffer.from(await out.Body.transformToByteArray())
}
const put = (c, Key, Body, more = {}) => c.send(new PutObjectCommand({ Bucket, Key, Body, ...more }))
const head = (c, Key, more = {}) => c.send(new HeadObjectCommand({ Bucket, Key, ...more }))
async function refused(code, promise) {
  try {
    await promise
  } catch (e) {
    assert.ok(e.name === code || e.$metadata?.httpStatusCode === code, `refused with ${e.name} ${e.$metadata?.httpStatusCode}, not ${code}: ${e.message}`)
    return e.message
  }
  assert.fail('was not refused')
}
function equal(a, b) {
  assert.ok(Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0, `${a.length} bytes are not those ${b.length}`)
}

const checks = {
  async 'make bucket, and who may not'() {
    await admin.send(new CreateBucketCommand({ Bucket }))
    await refused('AccessDenied', s.send(new CreateBucketCommand({ Bucket: 'c-js-refused' })))
    assert.ok((await s.send(new ListBucketsCommand({}))).Buckets.some((b) => b.Name === Bucket))
    await refused(404, s.send(new HeadBucketCommand({ Bucket: 'c-js-refused' })))
  },
  async 'put, get, label, ETag, with the default checksum'() {
    const out = await put(s, 'small', SMALL)
    assert.ok(out.ChecksumCRC32, 'no CRC32 came back')
    assert.ok(!/^"[0-9a-f]{32}"$/.test(out.ETag) || out.ETag === `"${createHash('md5').update(SMALL).digest('hex')}"`, out.ETag)
    const got = await s.send(new GetObjectCommand({ Bucket, Key: 'small' }))
    assert.equal(got.ChecksumCRC32, out.ChecksumCRC32) // asked for and verified by default
    equal(await got.Body.transformToByteArray(), SMALL)
    assert.equal(got.Metadata['redoubt-label'], 'SECRET')
  },
  async 'put a stream: chunks and a trailer'() {
    await put(s, 'stream', createReadStream(`${FILES}/million`), { ContentLength: MILLION.length })
    equal(await get(s, 'stream'), MILLION)
    for (const ChecksumAlgorithm of ['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256']) {
      const out = await put(s, 'sum', MILLION, { ChecksumAlgorithm }).catch((e) => {
        if (ChecksumAlgorithm === 'CRC64NVME' && /CRT|crc64/i.test(e.message)) return null // wants another package
        throw e
      })
      if (!out) continue
      assert.ok(out[`Checksum${ChecksumAlgorithm}`], ChecksumAlgorithm)
      equal(await get(s, 'sum'), MILLION)
    }
    await refused('BadDigest', put(s, 'bad', SMALL, { ChecksumSHA256: '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' }))
  },
  async 'metadata and label by Metadata'() {
    await put(s, 'meta', SMALL, { Metadata: { color: 'blue', 'redoubt-label': '(S)' }, ContentType: 'text/x-note' })
    const out = await head(s, 'meta')
    assert.deepEqual(out.Metadata, { color: 'blue', 'redoubt-label': 'SECRET' })
    assert.equal(out.ContentType, 'text/x-note')
    assert.match(await refused('AccessDenied', put(s, 'down', SMALL, { Metadata: { 'redoubt-label': 'UNCLASSIFIED' } })), /\(2\.1\)/)
  },
  async range() {
    equal(await get(s, 'stream', { Range: 'bytes=1000-1999' }), MILLION.subarray(1000, 2000))
    equal(await get(s, 'stream', { Range: 'bytes=-7' }), MILLION.subarray(-7))
    await refused('InvalidRange', get(s, 'stream', { Range: 'bytes=1000000-' }))
  },
  async 'conditional put and get'() {
    await put(s, 'once', SMALL, { IfNoneMatch: '*' })
    await refused('PreconditionFailed', put(s, 'once', SMALL, { IfNoneMatch: '*' }))
    const { ETag } = await head(s, 'once')
    await refused(304, get(s, 'once', { IfNoneMatch: ETag }))
    await put(s, 'once', MILLION, { IfMatch: ETag })
    await refused('PreconditionFailed', put(s, 'once', SMALL, { IfMatch: ETag }))
  },
  async 'multipart, 20 MiB, list parts, abort'() {
    await new Upload({ client: s, params: { Bucket, Key: 'twenty', Body: createReadStream(`${FILES}/twenty`) }, partSize: 5 << 20 }).done()
    equal(await get(s, 'twenty'), TWENTY)
    equal(await get(s, 'twenty', { PartNumber: 2 }), TWENTY.subarray(5 << 20, 10 << 20))
    const out = await s.send(new GetObjectAttributesCommand({ Bucket, Key: 'twenty', ObjectAttributes: ['ObjectParts', 'ObjectSize', 'Checksum'] }))
    assert.equal(out.ObjectSize, TWENTY.length)
    assert.equal(out.ObjectParts.TotalPartsCount, 5)
    const up = { Bucket, Key: 'aborted' }
    up.UploadId = (await s.send(new CreateMultipartUploadCommand(up))).UploadId
    await s.send(new UploadPartCommand({ ...up, PartNumber: 1, Body: SMALL }))
    assert.deepEqual((await s.send(new ListPartsCommand(up))).Parts.map((p) => p.Size), [SMALL.length])
    assert.equal((await s.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads.length, 1)
    assert.equal((await u.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads, undefined)
    await s.send(new AbortMultipartUploadCommand(up))
    await refused('NoSuchUpload', s.send(new ListPartsCommand(up)))
  },
  async 'copy a part'() {
    const up = { Bucket, Key: 'joined' }
    up.UploadId = (await s.send(new CreateMultipartUploadCommand(up))).UploadId
    const one = await s.send(new UploadPartCopyCommand({ ...up, PartNumber: 1, CopySource: `${Bucket}/twenty`, CopySourceRange: `bytes=0-${(6 << 20) - 1}` }))
    const two = await s.send(new UploadPartCommand({ ...up, PartNumber: 2, Body: SMALL }))
    const Parts = [{ PartNumber: 1, ETag: one.CopyPartResult.ETag }, { PartNumber: 2, ETag: two.ETag }]
    await s.send(new CompleteMultipartUploadCommand({ ...up, MultipartUpload: { Parts } }))
    equal(await get(s, 'joined'), Buffer.concat([TWENTY.subarray(0, 6 << 20), SMALL]))
    assert.equal((await head(s, 'joined')).Metadata['redoubt-label'], 'SECRET')
  },
  async 'copy, label carried'() {
    await put(u, 'low', SMALL, { Metadata: { color: 'red' } })
    await s.send(new CopyObjectCommand({ Bucket, Key: 'copied', CopySource: `${Bucket}/low` }))
    assert.deepEqual((await head(s, 'copied')).Metadata, { color: 'red', 'redoubt-label': 'SECRET' })
    await refused('NoSuchKey', u.send(new CopyObjectCommand({ Bucket, Key: 'stolen', CopySource: `${Bucket}/small` })))
  },
  async 'versions and delete markers'() {
    const one = (await put(s, 'v', 'one')).VersionId
    const two = (await put(s, 'v', 'two')).VersionId
    const listed = await s.send(new ListObjectVersionsCommand({ Bucket, Prefix: 'v' }))
    assert.deepEqual(listed.Versions.map((v) => v.VersionId), [two, one])
    equal(await get(s, 'v', { VersionId: one }), Buffer.from('one'))
    const gone = await s.send(new DeleteObjectCommand({ Bucket, Key: 'v' }))
    assert.ok(gone.DeleteMarker)
    await refused('NoSuchKey', get(s, 'v'))
    await s.send(new DeleteObjectCommand({ Bucket, Key: 'v', VersionId: gone.VersionId }))
    await s.send(new DeleteObjectCommand({ Bucket, Key: 'v', VersionId: two }))
    equal(await get(s, 'v'), Buffer.from('one'))
    await refused('NoSuchVersion', get(u, 'v', { VersionId: one }))
  },
  async 'presigned GET and PUT'() {
    const Key = `signed/${ODD}`
    const to = await getSignedUrl(s, new PutObjectCommand({ Bucket, Key, Metadata: { color: 'blue' } }), { expiresIn: 60 })
    const answer = await fetch(to, { method: 'PUT', body: SMALL })
    assert.equal(answer.status, 200, await answer.text())
    const from = await getSignedUrl(s, new GetObjectCommand({ Bucket, Key }), { expiresIn: 60 })
    equal(Buffer.from(await (await fetch(from)).arrayBuffer()), SMALL)
    assert.equal((await head(s, Key)).Metadata.color, 'blue')
    assert.equal((await fetch(from.replace('X-Amz-Expires=60', 'X-Amz-Expires=61'))).status, 403)
  },
  async tags() {
    await put(s, 'tagged', SMALL, { Tagging: 'a=1' })
    await s.send(new PutObjectTaggingCommand({ Bucket, Key: 'tagged', Tagging: { TagSet: [{ Key: 'topic', Value: 'a b+c/ü' }] } }))
    assert.deepEqual((await s.send(new GetObjectTaggingCommand({ Bucket, Key: 'tagged' }))).TagSet, [{ Key: 'topic', Value: 'a b+c/ü' }])
    await refused('NoSuchKey', u.send(new GetObjectTaggingCommand({ Bucket, Key: 'tagged' })))
    await s.send(new DeleteObjectTaggingCommand({ Bucket, Key: 'tagged' }))
    assert.deepEqual((await s.send(new GetObjectTaggingCommand({ Bucket, Key: 'tagged' }))).TagSet, [])
  },
  async 'names with unicode, space, plus and worse'() {
    for (const name of [ODD, 'a//b', '日本/語', 'per%20cent', `quote"'<&>`, 'trailing/']) {
      await put(s, `names/${name}`, Buffer.from(name))
      equal(await get(s, `names/${name}`), Buffer.from(name))
      await s.send(new CopyObjectCommand({ Bucket, Key: 'names-copied', CopySource: encodeURIComponent(`${Bucket}/names/${name}`) }))
    }
  },
  async 'an empty file'() {
    await put(s, 'empty', Buffer.alloc(0))
    equal(await get(s, 'empty'), Buffer.alloc(0))
  },
  async 'lists in pages'() {
    const keys = []
    for await (const page of paginateListObjectsV2({ client: s, pageSize: 3 }, { Bucket })) keys.push(...page.Contents.map((o) => o.Key))
    assert.ok(keys.length > 15 && new Set(keys).size === keys.length)
    assert.ok(keys.includes(`names/${ODD}`) && keys.includes('names/a//b'))
  },
  async 'a lower subject gets 404 and empty lists'() {
    await refused(404, head(u, 'small'))
    await refused('NoSuchKey', get(u, 'small'))
    for await (const page of paginateListObjectsV2({ client: u }, { Bucket })) assert.deepEqual(page.Contents.map((o) => o.Key), ['low'])
    assert.deepEqual((await u.send(new ListObjectVersionsCommand({ Bucket }))).Versions.map((v) => v.Key), ['low'])
  },
  async 'delete, delete many, delete bucket'() {
    await s.send(new DeleteObjectCommand({ Bucket, Key: 'small' }))
    await refused(404, head(s, 'small'))
    for await (const page of paginateListObjectsV2({ client: s }, { Bucket })) {
      const out = await s.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: page.Contents.map(({ Key }) => ({ Key })) } }))
      assert.equal(out.Errors, undefined)
    }
    for await (const page of paginateListObjectsV2({ client: s }, { Bucket })) assert.equal(page.Contents, undefined)
    await admin.send(new CreateBucketCommand({ Bucket: 'c-js-gone' }))
    await refused('AccessDenied', s.send(new DeleteBucketCommand({ Bucket: 'c-js-gone' })))
    await admin.send(new DeleteBucketCommand({ Bucket: 'c-js-gone' }))
  },
}

for (const [name, run] of Object.entries(checks)) {
  try {
    await run()
    console.log(`ok   ${CLIENT}: ${name}`)
  } catch (e) {
    console.log(`FAIL ${CLIENT}: ${name}\n       ${String(e.stack).replaceAll('\n', '\n       ')}`)
  }
}
console.log('end')
