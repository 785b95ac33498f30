// npm postmark: send, batch, templates, errors.
import { ServerClient } from 'postmark'
import { answer, failed, given } from './given.mjs'

const at = (root) => ({ requestHost: root.replace('http://', ''), useHttps: false, timeout: 60 })
const client = new ServerClient(given.key, at(`${given.url}/compat/postmark`))
const mail = {
  From: `Shop <orders@${given.domain}>`,
  To: 'delivered@simulator.test',
  Subject: 'Grüße 🎉',
  TextBody: 'Hi',
  HtmlBody: '<p>Hi</p>',
}

const sent = await client.sendEmail({
  ...mail,
  Cc: 'cc@simulator.test',
  Bcc: 'bcc@simulator.test',
  ReplyTo: 'help@simulator.test',
  Tag: 'order',
  Metadata: { order: '17' },
  Headers: [{ Name: 'X-Order', Value: '17' }],
  Attachments: [
    { Name: 'a.txt', Content: Buffer.from('attached').toString('base64'), ContentType: 'text/plain', ContentID: null },
    { Name: 'logo.png', Content: Buffer.from('png').toString('base64'), ContentType: 'image/png', ContentID: 'cid:logo' },
  ],
  TrackOpens: true,
  MessageStream: 'outbound',
})

const read = given.bounced && {
  list: await client.getOutboundMessages({ recipient: 'dead@example.com' }),
  details: await client.getOutboundMessageDetails(given.bounced),
  bounces: await client.getBounces({ count: 10 }),
  stats: await client.getDeliveryStatistics(),
  added: await client.createSuppressions('outbound', { Suppressions: [{ EmailAddress: 'x@simulator.test' }] }),
  dump: await client.getSuppressions('outbound'),
  removed: await client.deleteSuppressions('outbound', { Suppressions: [{ EmailAddress: 'x@simulator.test' }] }),
}
if (read) {
  const { ID } = read.bounces.Bounces[0]
  read.bounce = await client.getBounce(ID)
  read.activated = await client.activateBounce(ID)
}

const bare = { From: mail.From, To: mail.To, TemplateModel: { n: 1, name: 'Ann & Co' } }
const templated = given.template && {
  one: await client.sendEmailWithTemplate({ ...bare, TemplateAlias: given.template }),
  batch: await client.sendEmailBatchWithTemplates([
    { ...bare, TemplateAlias: given.template },
    { ...bare, TemplateAlias: 'nothing' },
  ]),
  unknown: await failed(() => client.sendEmailWithTemplate({ ...bare, TemplateId: 404 })),
}

answer({
  read,
  templated,
  sent,
  root: await new ServerClient(given.key, at(given.url)).sendEmail(mail),
  batch: await client.sendEmailBatch([mail, { ...mail, To: 'nobody' }]),
  invalid: await failed(() => client.sendEmail({ ...mail, To: 'nobody' })),
  foreign: await failed(() => client.sendEmail({ ...mail, From: 'a@elsewhere.example' })),
  inactive: await failed(() => client.sendEmail({ ...mail, To: given.inactive })),
  wrongKey: await failed(() => new ServerClient('nobody', at(`${given.url}/compat/postmark`)).sendEmail(mail)),
})
