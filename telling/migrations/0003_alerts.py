from decimal import Decimal

import django.core.validators
import django.db.models.deletion
import providers.fields
import telling.alerts.kinds
import telling.channels.registry
import uuid
from django.db import migrations, models


# What everybody wants to know. They have no channels, so at first they are shown in the admin alone.
RULES = (
    ('Error rate above 10 %', 'error_rate', '10', 300),
    ('p95 above 30 s', 'p95_duration', '30', 300),
    ('One call costs more than 1', 'call_cost', '1', 900),
    ('Budget at 50 %', 'budget', '50', 300),
    ('Budget at 80 %', 'budget', '80', 300),
    ('Budget at 100 %', 'budget', '100', 300),
    ('Breaker open', 'breaker_open', '0', 60),
    ('Key rejected', 'key_rejected', '0', 60),
    ('Usage missing', 'usage_missing', '5', 900),
    ('Tasks wait longer than 60 s', 'queue_delay', '60', 60),
    ('Journal backlog above 64 MiB', 'journal_backlog', '64', 60),
)


def add_rules(apps, schema_editor):
    rule = apps.get_model('telling', 'AlertRule')
    rows = [rule(name=name, condition=condition, threshold=Decimal(threshold), window_s=window_s) for name, condition, threshold, window_s in RULES]
    rule.objects.using(schema_editor.connection.alias).bulk_create(rows)


class Migration(migrations.Migration):

    dependencies = [
        ('tasks', '0001_initial'),
        ('telling', '0002_events_and_tickets'),
    ]

    operations = [
        migrations.CreateModel(
            name='AlertChannel',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=80, unique=True)),
                ('kind', models.CharField(choices=telling.channels.registry.choices, max_length=20)),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
                ('recipients', models.TextField(blank=True, help_text='Of e-mail: one address a line.', max_length=2000)),
                ('shown_address', models.CharField(blank=True, editable=False, help_text='Without what must stay secret.', max_length=300, verbose_name='address')),
                ('sealed', providers.fields.EncryptedField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ['name'],
                'permissions': [('test_alertchannel', 'Can send a test message')],
            },
        ),
        migrations.CreateModel(
            name='AlertSample',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.FloatField(db_index=True, help_text='Wall seconds.')),
                ('seen_id', models.PositiveBigIntegerField(default=0, help_text='The newest row of the ledger.')),
                ('read_id', models.PositiveBigIntegerField(default=0, help_text='Up to this one, calls have been looked at.')),
                ('sums', models.JSONField(default=dict, help_text='hour → provider → [requests, failed, and those of each duration].')),
                ('calls', models.JSONField(default=dict, help_text='Since the sample before: provider → [answered, of these without usage].')),
                ('dearest', models.JSONField(default=list, help_text='Of those: [micros, request id, key, model] of the one that cost most.')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='AlertTurn',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('next_at', models.FloatField(default=0, help_text='Wall seconds.')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='JournalBacklog',
            fields=[
                ('process', models.CharField(max_length=80, primary_key=True, serialize=False)),
                ('waiting_bytes', models.PositiveBigIntegerField()),
                ('updated_at', models.FloatField(help_text='Wall seconds.')),
            ],
            options={
                'default_permissions': (),
            },
        ),
        migrations.AlterField(
            model_name='webhook',
            name='task',
            field=models.ForeignKey(help_text='Empty: it tells of an alert.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='webhooks', to='tasks.task'),
        ),
        migrations.AddField(
            model_name='webhook',
            name='channel',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='telling.alertchannel'),
        ),
        migrations.CreateModel(
            name='AlertRule',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=120, unique=True)),
                ('condition', models.CharField(choices=telling.alerts.kinds.choices, max_length=30)),
                ('threshold', models.DecimalField(decimal_places=4, help_text="In the condition's unit; it fires beyond this.", max_digits=14)),
                ('window_s', models.PositiveIntegerField(default=300, help_text='Seconds that are looked at together; of states, for how long all must be well before it counts as over.', validators=[django.core.validators.MinValueValidator(30), django.core.validators.MaxValueValidator(3600)], verbose_name='window')),
                ('min_requests', models.PositiveIntegerField(default=20, help_text='Requests in the window; of fewer, shares say nothing.', validators=[django.core.validators.MinValueValidator(1)], verbose_name='at least')),
                ('per_provider', models.BooleanField(default=False, help_text='Else for all requests together.', verbose_name='for each provider')),
                ('is_active', models.BooleanField(default=True, verbose_name='active')),
                ('channels', models.ManyToManyField(blank=True, help_text='None: it is shown here alone.', related_name='rules', to='telling.alertchannel')),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='Alert',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rule_name', models.CharField(max_length=120, verbose_name='rule')),
                ('condition', models.CharField(choices=telling.alerts.kinds.choices, max_length=30)),
                ('subject', models.CharField(max_length=200)),
                ('label', models.CharField(max_length=300, verbose_name='about')),
                ('value', models.FloatField(help_text="In the condition's unit.", verbose_name='last value')),
                ('sentence', models.CharField(max_length=500, verbose_name='matter')),
                ('started_at', models.DateTimeField(verbose_name='firing since')),
                ('seen_at', models.DateTimeField(verbose_name='last seen')),
                ('resolved_at', models.DateTimeField(db_index=True, null=True)),
                ('rule', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='alerts', to='telling.alertrule')),
            ],
            options={
                'ordering': ['-started_at'],
                'default_permissions': ('view',),
                'indexes': [models.Index(fields=['-started_at'], name='alert_newest')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('resolved_at', None)), fields=('rule', 'subject'), name='alert_open_once')],
            },
        ),
        migrations.RunPython(add_rules, migrations.RunPython.noop),
    ]
